//! How jobs end: finished, stopped and continued, given up.
