// simple-oauth2.
import { ResourceOwnerPassword } from "simple-oauth2";
const { ORIGIN, HANDLE } = process.env;
const auth = { tokenHost: ORIGIN, tokenPath: "/oauth/token" };
const client = new ResourceOwnerPassword({ client: { id: "any", secret: "any" }, auth });
try {
  const token = await client.createToken({ refresh_token: HANDLE }).refresh();
  console.log(token.token.access_token);
} catch (error) {
  console.log(`${error.output?.statusCode} ${error.data?.payload?.error ?? "-"}`);
}
