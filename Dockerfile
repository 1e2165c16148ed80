# The command mg on a CPU, or on Ascend with a base image that has CANN and MindSpore's needs:
#   docker build -t mg .
#   docker build -t mg-ascend --build-arg BASE=quay.io/ascend/cann:TAG .
#   docker run --rm -v "$PWD:/data" mg reconstruct --video_folder clips ...
# For Ascend the container also needs the device, such as --device /dev/davinci0 and its driver's
# folders; see CANN's documentation. No test builds this file, and it has not run on Ascend yet.
ARG BASE=python:3.11-slim
FROM ${BASE}
# OpenCV's wheel asks for these two libraries, which slim images lack.
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/mg
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY mg mg
COPY assets assets
COPY configs configs
COPY protocols protocols
RUN python3 -m pip install --no-cache-dir .
WORKDIR /data
ENTRYPOINT ["mg"]
CMD ["--help"]
