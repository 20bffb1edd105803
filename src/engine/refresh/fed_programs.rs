//! The interface through which the engine sees the programs that a profile feeds. While the file of one has our refresh token,
//! it would use it, too, so nothing is sent: a feed was killed half-way, or an import was followed by no feed.

use crate::credential::secret::RefreshToken;
use crate::outcome::Failure;
use crate::profile::Profile;

/// The files of fed programs, as a refresh needs them.
pub trait FedPrograms: Send + Sync {
    /// A program whose file has a refresh token that is ours: what is wrong, and what a person can do.
    fn holder(&self, profile: &Profile, is_ours: &dyn Fn(RefreshToken) -> bool) -> Option<Failure>;
}
