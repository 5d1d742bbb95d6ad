//! Hash-chained, signed log of every act
