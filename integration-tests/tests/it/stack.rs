//! The stack itself: do the services do what every other test relies on?
