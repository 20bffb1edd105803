//! All integration tests, in one binary: the built program against real servers, keyrings and service managers.

mod support;

mod contrib;
mod daemon;
mod faults;
mod herds;
mod imports;
mod keyrings;
mod misuse;
mod oidc;
mod refreshes;
mod rehearsals;
mod systemd;
mod tidy;
mod tokens;
