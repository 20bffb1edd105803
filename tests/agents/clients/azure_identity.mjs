// @azure/identity, by the convention of Azure App Service.
import { ManagedIdentityCredential } from "@azure/identity";
const options = { retryOptions: { maxRetries: 0 } };
try {
  console.log((await new ManagedIdentityCredential(options).getToken("https://api.acme.example/.default")).token);
} catch (error) {
  console.log(`${error.name} ${/needs a login/.test(error.message) ? "needs a login" : "-"}`);
}
