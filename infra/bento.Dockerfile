# A signed Bento as an image that serves it: `slipway export image`. The context is the Bento, model.sig and trusted.pem.
#
# Nothing in it belongs to the user that it runs as, and nothing is written but to /tmp:
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -p 127.0.0.1:3000:3000 IMAGE
ARG BASE_IMAGE=python:3.11.14-slim-bookworm
ARG WHEELS=no-wheels

FROM scratch AS no-wheels
FROM ${WHEELS} AS wheels

FROM ${BASE_IMAGE}
RUN python3 -m venv /opt/bento
ENV PATH=/opt/bento/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CACHE_DIR=/var/cache/pip
ARG PIP_ARGS=
RUN --mount=type=bind,source=env/python/requirements.txt,target=/build/requirements.txt \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,target=/var/cache/pip \
    pip install -q --no-deps -r /build/requirements.txt ${PIP_ARGS}
COPY --chmod=755 . /bento
RUN mv /bento/trusted.pem /opt/bento/trusted.pem
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True \
    SLIPWAY_TRUSTED_KEY=/opt/bento/trusted.pem
WORKDIR /bento
EXPOSE 3000
USER 10001:10001
ENTRYPOINT ["/opt/bento/bin/python", "-m", "bentoml", "serve", "."]
CMD ["--host", "0.0.0.0", "--port", "3000"]
