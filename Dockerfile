# The page in a container, on a CPU or an NVIDIA GPU. How it is built and run: docs/install.md
FROM python:3.12.12-slim-bookworm
# cpu: a PyTorch without CUDA. gpu: the one of PyPI, whose CUDA needs nothing of the host but its driver.
ARG DEVICE=cpu
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 1000 roleplay && install -d -o roleplay /app /data
WORKDIR /app
ENV PYTHONUNBUFFERED=1 PYTHONUTF8=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

COPY requirements.txt .
RUN if [ "$DEVICE" = cpu ]; then pip install "$(grep '^torch==' requirements.txt)" --index-url "$CPU_INDEX"; fi \
    && pip install -r requirements.txt
COPY --chown=roleplay . .
RUN pip install --no-deps -e .

USER 1000
# What outlives the container: the prepared model, what hubs sent, an adapter made at the start, and votes.
ENV HOST=0.0.0.0 PORT=7860 STORAGE=/data \
    ROLEPLAY_CACHE=/data/cache HF_HOME=/data/huggingface MODELSCOPE_CACHE=/data/modelscope
RUN mkdir /data/votes && ln -s /data/votes votes
VOLUME /data
EXPOSE 7860
CMD ["python", "app.py"]
