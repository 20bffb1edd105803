# google-auth, with a user's credential.
import os
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials

uri = os.environ["ORIGIN"] + "/oauth/token"
credentials = Credentials(None, refresh_token=os.environ["HANDLE"], token_uri=uri, client_id="any", client_secret="any")
try:
    credentials.refresh(Request())
    print(credentials.token)
except RefreshError as error:
    print("RefreshError", "retryable" if error.retryable else "final")
