# The page of metrics, by Prometheus' own parser of its text format: each family and its type.
import os
import urllib.request
from prometheus_client.parser import text_string_to_metric_families

request = urllib.request.Request(os.environ["ORIGIN"] + "/metrics", headers={"Authorization": "Bearer " + os.environ["HANDLE"]})
page = urllib.request.urlopen(request).read().decode()
for family in text_string_to_metric_families(page):
    print(family.name, family.type)
