//! Reads a token response (RFC 6749 §5) as real servers write it. (pure)
