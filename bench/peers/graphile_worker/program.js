// graphile-worker as a peer: enqueues and works no-op jobs in one process, and says when each stretch begins and ends.
//
// With the local queue and batched completion of its page on performance, and a short poll for due jobs. It deletes a job when it is done and
// keeps no history; the delay before a retry is its own formula, e^attempt seconds, and cannot be chosen. No server in between.

import { makeWorkerUtils, run, Logger } from "graphile-worker";
import pg from "pg";
import { createInterface } from "node:readline";

const PRODUCERS = 2;
const ATTEMPTS = 3;
const task = JSON.parse(process.argv[2]);
const pool = new pg.Pool({ connectionString: task.database_url, max: 40 });
const payload = JSON.parse(task.payload);
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const begin = () => say({ begin: true });
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
// Waits for a line: until then the process is metered.
const end = async (figure, jobs) => { say({ end: figure, jobs }); await lines.next(); };

let handle = () => {};
let handled = 0;
const count = () => { handled += 1; };

const quiet = new Logger(() => () => {});
const preset = {
  worker: {
    concurrentJobs: 24,
    maxPoolSize: 25,
    pollInterval: 50,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    fileExtensions: [],
    logger: quiet,
  },
};

const work = () =>
  run({ preset, pgPool: pool, noHandleSignals: true, taskList: { noop: (input, helpers) => handle(helpers.job) } });

async function open() {
  await pool.query("DROP SCHEMA IF EXISTS graphile_worker CASCADE");
  const utils = await makeWorkerUtils({ preset, pgPool: pool });
  await utils.migrate();
  return utils;
}

async function fill(utils) {
  const specs = Array.from({ length: task.batch }, () => ({ identifier: "noop", payload, maxAttempts: ATTEMPTS }));
  const produce = async () => {
    for (let i = 0; i < Math.floor(task.jobs / PRODUCERS / task.batch); i += 1) await utils.addJobs(specs);
  };
  await Promise.all(Array.from({ length: PRODUCERS }, produce));
}

// Returns when every job was handled so often, and none is left in the database.
async function finish(attempts) {
  while (handled < task.jobs * attempts) await sleep(1);
  for (;;) {
    const { rows } = await pool.query("SELECT EXISTS (SELECT FROM graphile_worker._private_jobs) AS some");
    if (!rows[0].some) return;
    await sleep(1);
  }
}

const figures = {
  async batches(utils) {
    begin();
    await fill(utils);
    await end("enqueue", task.jobs);
    await pool.query("ANALYZE graphile_worker._private_jobs");
    handle = count;
    begin();
    await work();
    await finish(1);
    await end("burn-down", task.jobs);
  },
  async mixed(utils) {
    handle = count;
    await work();
    begin();
    await fill(utils);
    await finish(1);
    await end("mixed lifecycles", task.jobs);
  },
  async "one by one"(utils) {
    const calls = Math.floor(task.jobs / task.callers);
    const call = async () => {
      for (let i = 0; i < calls; i += 1) await utils.addJob("noop", payload);
    };
    begin();
    await Promise.all(Array.from({ length: task.callers }, call));
    await end("enqueue, one job per call", calls * task.callers);
  },
  async start(utils) {
    let arrived;
    handle = () => arrived(performance.now());
    await work();
    await sleep(1000);
    const waits = [];
    for (let i = 0; i < task.jobs; i += 1) {
      await sleep(5 + Math.random() * 20);
      const arrival = new Promise((resolve) => { arrived = resolve; });
      const started = performance.now();
      await utils.addJob("noop", payload);
      waits.push((await arrival) - started);
    }
    say({ waits: "enqueue to start, at rest", milliseconds: waits });
  },
  async "retry lateness"(utils) {
    const waits = [];
    handle = (job) => {
      if (job.attempts === 1) throw new Error("fails on purpose");
      waits.push(Date.now() - job.run_at.getTime());
    };
    await fill(utils);
    await work();
    while (waits.length < task.jobs) await sleep(10);
    say({ waits: "retry lateness, at rest", milliseconds: waits });
  },
  async "retry path"(utils) {
    handle = (job) => {
      count();
      if (job.attempts < ATTEMPTS) throw new Error("fails on purpose");
    };
    await fill(utils);
    await pool.query("ANALYZE graphile_worker._private_jobs");
    begin();
    await work();
    await finish(ATTEMPTS);
    await end("retry path", task.jobs * ATTEMPTS);
  },
};

await figures[task.figure](await open());
process.exit(0);
