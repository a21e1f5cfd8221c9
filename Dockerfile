# The image of `infrasage api` and `infrasage worker`; docker-compose.temporal.yml runs both.
#
# Python 3.11, because the locks were resolved and the tests run with it. Both locks are made by pip-tools, with the versions
# of requirements.lock:
#   FLAGS="--generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url --no-emit-find-links
#          --no-emit-options --no-emit-trusted-host -c requirements.lock"
#   .venv/bin/pip-compile $FLAGS -o requirements-runtime.lock pyproject.toml
#   echo setuptools | .venv/bin/pip-compile $FLAGS -o docker/requirements-build.lock -

FROM python:3.11.15-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build

# The libraries first: they change less often than the code, and are most of the image.
COPY requirements-runtime.lock ./
RUN python -m venv --without-pip /opt/infrasage \
    && pip --python /opt/infrasage/bin/python install --require-hashes --only-binary=:all: --requirement requirements-runtime.lock

COPY docker/requirements-build.lock ./
RUN pip install --require-hashes --only-binary=:all: --requirement requirements-build.lock

COPY pyproject.toml ./
COPY domain ./domain
COPY activities ./activities
COPY workflows ./workflows
COPY api ./api
COPY cli ./cli
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && pip --python /opt/infrasage/bin/python install --no-deps --no-index /wheels/*.whl \
    && pip --python /opt/infrasage/bin/python check

FROM python:3.11.15-slim-bookworm

RUN groupadd --gid 10001 infrasage \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/infrasage --shell /usr/sbin/nologin infrasage \
    && install --directory --owner infrasage --group infrasage --mode 0700 /var/lib/infrasage \
    && install --directory /etc/infrasage/runbooks

COPY --from=build /opt/infrasage /opt/infrasage
COPY docker/health.py /opt/infrasage/health.py

ENV PATH=/opt/infrasage/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INFRASAGE_DATA_DIR=/var/lib/infrasage

# `.env` and RUNBOOKS_DIR are looked for here. No runbooks are built in: what may act on a cluster is mounted, knowingly.
WORKDIR /etc/infrasage

USER 10001:10001

EXPOSE 9093

STOPSIGNAL SIGTERM

# Of the API; a worker listens nowhere and is asked with `health.py worker`, see docker-compose.temporal.yml.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/infrasage/health.py", "api"]

ENTRYPOINT ["infrasage"]
CMD ["--help"]
