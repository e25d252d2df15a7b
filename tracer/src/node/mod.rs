//! Who is who on this node.
