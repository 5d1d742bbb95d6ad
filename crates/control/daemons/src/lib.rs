//! What runs all the time: guard, agent, controller.
