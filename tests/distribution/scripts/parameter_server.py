"""A distiller under ParameterServerStrategy: one worker and one parameter server, in this process."""

import socket

import tensorflow as tf
from workload import distiller, refusal, report

sockets = [socket.socket() for _ in range(3)]
for one in sockets:
    one.bind(("127.0.0.1", 0))
ports = [one.getsockname()[1] for one in sockets]
for one in sockets:
    one.close()
cluster = {job: [f"127.0.0.1:{port}"] for job, port in zip(("worker", "ps", "chief"), ports, strict=True)}
servers = [tf.distribute.Server(cluster, job_name=job, task_index=0, protocol="grpc") for job in ("worker", "ps")]
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec(cluster), task_type="chief", task_id=0, rpc_layer="grpc"
)
with tf.distribute.ParameterServerStrategy(resolver).scope():
    message = refusal(distiller)
report(message)
