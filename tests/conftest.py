"""Settings that every test shares."""

import os

# Quiet MindSpore's warnings about its own kernels before it is imported anywhere.
os.environ.setdefault("GLOG_v", "3")
