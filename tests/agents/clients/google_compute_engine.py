# google-auth, from the metadata server of Google's cloud.
from google.auth.compute_engine import Credentials
from google.auth.exceptions import RefreshError, TransportError
from google.auth.transport.requests import Request

credentials = Credentials()
try:
    credentials.refresh(Request())
    print(credentials.token)
except (RefreshError, TransportError) as error:
    print(type(error).__name__)
