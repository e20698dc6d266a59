# CPU:  docker build --tag swg-fast .
# CUDA: docker build --tag swg-fast --build-arg PIP_EXTRA_INDEX_URL= .
FROM python:3.11-slim

# The index of torch without CUDA; without it pip takes PyPI's torch, which has CUDA.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG EXTRAS=train,video

# A compiler for the loops in C and for Triton, and what MuJoCo renders with.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev make libegl1 libgl1 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/swg-fast
COPY pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY kernels kernels
COPY reference reference
COPY swg_fast swg_fast
RUN make install PYTHON=python EXTRAS="$EXTRAS"

# Any user of the host may run it and write to /work: docker run --user "$(id -u)" --volume "$PWD:/work"
RUN install --directory --mode 1777 /work
WORKDIR /work
USER 1000
ENV HOME=/tmp USER=swg MUJOCO_GL=egl
ENTRYPOINT ["swg-fast"]
CMD ["info"]
