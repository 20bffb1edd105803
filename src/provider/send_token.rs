//! Sends a refresh token, once: to be exchanged (RFC 6749 §6) or to be revoked (RFC 7009).

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use url::Url;

use super::http::{HttpEndpoint, send_and_read, with_headers};
use super::{BeforeSend, BeforeSendError, ExchangeResult, NotSentReason, PreparedProvider, RawResponse};
use crate::credential::content_coding;
use crate::credential::secret::RefreshToken;
use crate::events;
use crate::guard::{LockedCredential, SpentCredential};
use crate::profile::Provider;
use crate::provider::client_auth::ClientAuthentication;
use crate::provider::request_encoding::EncodedRequest;
use crate::provider::send_gate::{GatedBody, SendGate, SendOutcome, exchange_ends};

/// What reading and sealing the largest response takes: the body, what it unpacks to, and their copies.
const RESERVED_MEMORY: usize = 8 * content_coding::MAX_BODY_BYTES;
/// Said of an exchange whose task ended without a word: a bug, or no thread for the name lookup.
const TASK_DIED: &str = "the connection ended by an internal error";

/// Makes the request that carries a refresh token, as [`super::request_encoding`] writes it.
type EncodeToken = fn(&Provider, &ClientAuthentication, &RefreshToken) -> EncodedRequest;

impl HttpEndpoint {
    /// Sends a refresh token to `url`, once: to be exchanged or to be revoked.
    pub(super) fn send_refresh_token<'l>(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        held: LockedCredential<'l>,
        gate: BeforeSend,
        encode: EncodeToken,
    ) -> ExchangeResult<'l> {
        let unsent = |held, why| ExchangeResult::NotSent { held, may_have_intent: false, why, answer: None };
        let client = match self.client(&prepared.provider, url) {
            Ok(client) => client,
            Err(f) => return unsent(held, NotSentReason::Network(f.message)),
        };
        // Each send has an assertion of its own, because servers accept one only once.
        let Ok(proof) = prepared.authenticate(self.now()) else {
            let why = BeforeSendError::Refused("cannot sign the client assertion");
            return unsent(held, NotSentReason::BeforeSend(why));
        };
        // Memory that is not to be had ends the process, so it is asked for while nothing has been sent.
        let Some(memory) = reserve_memory() else {
            return unsent(held, NotSentReason::BeforeSend(BeforeSendError::Refused("there is not enough memory")));
        };
        let (sent, predecessor) = held.spend();
        let send_gate = SendGate::new(gate);
        let wire = encode(&prepared.provider, &proof, &sent);
        let (flight, connection, body) = exchange_ends(&send_gate, Bytes::copy_from_slice(&wire.body));
        let request = gated_request(&client, url, &prepared.provider, &wire, body);
        events::provider_step(&prepared.provider.name, "connecting; the refresh token is sent when the check passes");
        // On the thread of the connection, so that this one is woken once and not at each step of the exchange.
        let exchange = {
            let (send_gate, provider) = (Arc::clone(&send_gate), Arc::clone(&prepared.provider));
            async move { connection.finish(send_and_read(request, &send_gate, &provider).await) }
        };
        drop(self.runtime().spawn(exchange));
        let mut response = flight.wait(|| drop(memory)).unwrap_or_else(|| Err(TASK_DIED.to_owned()));
        if let Ok(answer) = &mut response {
            answer.sent = wire.sent;
        }
        result_of(send_gate.close_and_report(), response, sent, predecessor)
    }
}

/// Address space for what comes after the send. It is given back when the check has run.
fn reserve_memory() -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(RESERVED_MEMORY).ok()?;
    // Else the compiler leaves the allocation out, because nothing uses it.
    Some(std::hint::black_box(memory))
}

/// What the gate and the connection say, taken together.
fn result_of(
    outcome: SendOutcome,
    response: Result<RawResponse, String>,
    sent: RefreshToken,
    predecessor: SpentCredential<'_>,
) -> ExchangeResult<'_> {
    match (outcome, response) {
        (SendOutcome::Sent, Ok(answer)) if answer.is_complete => {
            ExchangeResult::Responded { sent, predecessor, answer }
        }
        (SendOutcome::Sent, Ok(partial)) => {
            let why = format!("the response was cut off or exceeds {} bytes", content_coding::MAX_BODY_BYTES);
            ExchangeResult::ResponseLost { sent, predecessor, why, partial: Some(partial) }
        }
        (SendOutcome::Sent, Err(why)) => ExchangeResult::ResponseLost { sent, predecessor, partial: None, why },
        (SendOutcome::NotSent { proof, may_have_intent, gate }, response) => {
            let why = match (&response, gate) {
                (_, Some(error)) => NotSentReason::BeforeSend(error),
                (Ok(answer), None) => NotSentReason::EarlyResponse(format!(
                    "the server returned {} before it got the request",
                    answer.status
                )),
                (Err(why), None) => NotSentReason::Network(why.clone()),
            };
            let held = predecessor.restore_unsent(sent, proof);
            ExchangeResult::NotSent { held, may_have_intent, why, answer: response.ok() }
        }
    }
}

/// A request that carries a refresh token, with the send gate as its body.
pub(super) fn gated_request(
    client: &reqwest::Client,
    url: &Url,
    provider: &Provider,
    wire: &EncodedRequest,
    body: GatedBody,
) -> reqwest::RequestBuilder {
    let mut request = with_headers(client.post(url.clone()), provider).header(CONTENT_TYPE, wire.content_type);
    if let Some(authorization) = &wire.authorization {
        request = request.header(AUTHORIZATION, authorization.as_str());
    }
    request.body(reqwest::Body::wrap(body))
}
