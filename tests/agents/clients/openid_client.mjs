// openid-client, from the metadata of RFC 8414 on.
import * as client from "openid-client";
const { ORIGIN, HANDLE } = process.env;
const insecure = { algorithm: "oauth2", execute: [client.allowInsecureRequests] };
const config = await client.discovery(new URL(ORIGIN), "any", undefined, client.None(), insecure);
try {
  console.log((await client.refreshTokenGrant(config, HANDLE)).access_token);
} catch (error) {
  console.log(`${error.constructor.name} ${error.error ?? "-"}`);
}
