# docker build -t faceswap-diffusion .                                     for the CPU
# docker build -t faceswap-diffusion --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .   for NVIDIA GPUs
#
# docker run --rm --network none -v "$PWD:/photos" faceswap-diffusion swap me.jpg group.jpg -o out.png
# docker run --rm -p 127.0.0.1:7860:7860 faceswap-diffusion demo --host 0.0.0.0

FROM python:3.12-slim

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=demo,heif,video

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY faceswap_diffusion ./faceswap_diffusion
RUN pip install ".[$EXTRAS]" && rm -rf /source

RUN useradd --create-home --uid 1000 swapper && mkdir /photos && chown swapper /photos
USER swapper
WORKDIR /photos
# What the package needs is inside it: nothing asks a server.
ENV HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False
EXPOSE 7860
STOPSIGNAL SIGTERM
ENTRYPOINT ["faceswap-diffusion"]
CMD ["--help"]
