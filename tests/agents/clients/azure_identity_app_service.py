# azure-identity, by the convention of Azure App Service.
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ManagedIdentityCredential

credential = ManagedIdentityCredential(retry_total=0)
try:
    print(credential.get_token("https://api.acme.example/.default").token)
except ClientAuthenticationError as error:
    print("ClientAuthenticationError", "needs a login" if "needs a login" in str(error) else "-")
