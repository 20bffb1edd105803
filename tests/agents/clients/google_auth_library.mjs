// google-auth-library, as Google's own programs use it.
import { UserRefreshClient } from "google-auth-library";
const { ORIGIN, HANDLE } = process.env;
const endpoints = { oauth2TokenUrl: `${ORIGIN}/oauth/token` };
const client = new UserRefreshClient({ clientId: "any", clientSecret: "any", refreshToken: HANDLE, endpoints });
try {
  console.log((await client.getAccessToken()).token);
} catch (error) {
  console.log(`${error.response?.status ?? error.status} ${error.response?.data?.error ?? "-"}`);
}
