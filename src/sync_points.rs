//! sync_points
