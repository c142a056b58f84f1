//! What is refused, with which error.
