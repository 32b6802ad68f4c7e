//! A component that keeps its results in the moka cache component.
