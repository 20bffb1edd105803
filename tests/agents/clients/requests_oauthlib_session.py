# requests-oauthlib, which refuses a scope that it did not ask for.
import os

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
from oauthlib.oauth2 import OAuth2Error
from requests_oauthlib import OAuth2Session

session = OAuth2Session("any", scope=["other"], token={"access_token": "old", "token_type": "Bearer"})
try:
    print(session.refresh_token(os.environ["ORIGIN"] + "/oauth/token", refresh_token=os.environ["HANDLE"])["access_token"])
except OAuth2Error as error:
    print(type(error).__name__, error.error)
