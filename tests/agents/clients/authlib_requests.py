# authlib, over requests.
import os
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from requests import HTTPError

session = OAuth2Session("any", token_endpoint_auth_method="none")
try:
    print(session.refresh_token(os.environ["ORIGIN"] + "/oauth/token", refresh_token=os.environ["HANDLE"])["access_token"])
except OAuthError as error:
    print("OAuthError", error.error)
except HTTPError as error:
    print("HTTPError", error.response.status_code)
