"""PolicyService: policies by name and the downstreams they protect, all of it still to come."""

from reprise.v1 import policy_service_pb2_grpc

from broker.service.not_yet import refused


class PolicyService(policy_service_pb2_grpc.PolicyServiceServicer):
    """Refuses every call by name."""

    PutPolicy = refused("PutPolicy")
    GetPolicy = refused("GetPolicy")
    ListPolicies = refused("ListPolicies")
    EvaluatePolicy = refused("EvaluatePolicy")
    BacktestPolicy = refused("BacktestPolicy")
    PutDependency = refused("PutDependency")
    ListDependencies = refused("ListDependencies")
    OverrideBreaker = refused("OverrideBreaker")
