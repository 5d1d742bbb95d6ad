//! Observe, judge, fence, promote, cut over.
