//! One refresh: the transaction, its context, and the handling of each response.

pub mod admission;
pub mod backoff;
pub mod commit;
pub mod concurrency;
pub mod context;
pub mod errors;
mod fed_check;
pub mod fed_programs;
pub mod follow;
pub mod followed_stores;
pub mod other_entries;
mod refusal_text;
pub mod retry_policy;
mod seal_response;
pub mod settle;
pub mod transaction;

#[cfg(test)]
mod tests;
