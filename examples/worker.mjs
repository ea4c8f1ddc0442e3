// A worker in JavaScript (Node 18 or newer): one lease stream, as many jobs at a time as it gives credits.
//
//   npm install --no-save @grpc/grpc-js @grpc/proto-loader    # reads proto/ as it is: no stubs to generate
//   node examples/worker.mjs                                  # REPRISE_BROKER, default 127.0.0.1:50051
//   reprise enqueue --queue mail --kind send-email --retry 3 --input '{"to": "ada@example.org"}'
//
// On SIGTERM it just ends: what it still runs is decided when the lease expires. Release it instead, in a real one.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const CONCURRENCY = 10;
const LEASE_SECONDS = 30;
const handlers = {
  "send-email": async (input, job) => {
    if (job.attempt === 1) throw Object.assign(new Error("greylisted"), { name: "smtp.451" });
    return { sent_to: input.to, attempt: job.attempt };
  },
};

const proto = loadSync("reprise/v1/broker_service.proto", {
  includeDirs: [fileURLToPath(new URL("../proto", import.meta.url))],
  keepCase: true,
  longs: String, // a job_id is larger than a number may be
  enums: String,
});
const { BrokerService } = grpc.loadPackageDefinition(proto).reprise.v1;
const address = process.env.REPRISE_BROKER ?? "127.0.0.1:50051";
const broker = new BrokerService(address, grpc.credentials.createInsecure());
const running = new Set(); // lease tokens

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

const call = (verb, request) =>
  new Promise((resolve, reject) => {
    const deadline = Date.now() + 10_000;
    broker[verb](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

// Reports are safe to repeat: the broker answers the second one as it did the first.
async function report(verb, request) {
  for (let tries = 0; ; tries++) {
    try {
      return await call(verb, request);
    } catch (error) {
      const passes = [grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED, grpc.status.RESOURCE_EXHAUSTED];
      if (!passes.includes(error.code) || tries === 20) throw error;
      await pause(1);
    }
  }
}

async function outcomeOf(lease) {
  try {
    const handler = handlers[lease.kind];
    if (!handler) throw Object.assign(new Error(`no handler for ${lease.kind}`), { name: "unknown_kind" });
    const result = await handler(JSON.parse(lease.input_json), lease);
    return { result_json: JSON.stringify(result ?? null) };
  } catch (error) {
    return { failure: { message: error.message, type: error.name, stack_trace: error.stack } };
  }
}

async function run(lease) {
  const { lease_token, job_id, attempt } = lease;
  running.add(lease_token);
  try {
    const { result_json, failure } = await outcomeOf(lease);
    const { results } = failure
      ? await report("Fail", { attempts: [{ lease_token, failure }] })
      : await report("Complete", { completions: [{ lease_token, result_json }] });
    console.log(`job ${job_id} attempt ${attempt}`, failure?.message ?? "done", results[0].decision?.verdict ?? results[0].outcome);
  } catch (error) {
    console.error(`job ${job_id} attempt ${attempt} is not reported: ${error.message}`);
  } finally {
    running.delete(lease_token);
    if (stream.writable) stream.write({ credits: 1 });
  }
}

let stream; // one at a time; what it delivered and was named as received outlives it
function takeJobs() {
  stream = broker.Lease();
  stream.write({ queues: ["mail"], lease_duration: { seconds: LEASE_SECONDS }, credits: CONCURRENCY - running.size });
  stream.on("data", ({ leases }) => {
    if (!leases.length) return; // a sign of life
    stream.write({ received: leases.map((lease) => lease.lease_token) });
    leases.forEach(run);
  });
  stream.on("error", (error) => console.error(`no lease stream: ${error.message}`));
  stream.on("status", () => setTimeout(takeJobs, 1000));
}

setInterval(() => {
  const extensions = [...running].map((lease_token) => ({ lease_token }));
  if (extensions.length) call("Extend", { extensions }).catch((error) => console.error(error.message));
}, (LEASE_SECONDS * 1000) / 3);

takeJobs();
