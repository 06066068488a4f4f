import { expect, test } from "bun:test";

import { Log, parseLogFilter } from "../src/log.ts";
import { Orchestrator, type OrchestratorOptions } from "../src/orchestrator.ts";
import { SpoolShare } from "../src/output/spool.ts";
import { dieOf, FakeHost } from "./support/host.ts";
import { idOf } from "./support/registry.ts";
import { Notebook } from "./simulation/notebook.ts";

/** An orchestrator on a system in memory, whose programs stay until they are killed. */
function scene() {
  const host = new FakeHost();
  const book = new Notebook();
  let runs = 0;
  let used: ReadonlySet<string> | undefined;
  let logged = "";
  const storage = {
    files: { append: async () => 0, rest: async () => {}, look: async () => {} },
    share: new SpoolShare(),
    onTrouble() {},
    now: () => 0,
    after: () => () => {},
  };
  const options = {
    host,
    log: new Log(
      parseLogFilter("memory=warn,off"),
      (line) => void (logged += line),
      () => 0,
    ),
    state: {
      store: book,
      binaries: { collect: (hashes: ReadonlySet<string>) => void (used = hashes) },
    },
    env: {},
    openSocket: (id: string) => ({ path: `/run/${id}`, close() {} }),
    telemetry: undefined,
    histories: { open: () => storage, remove: async () => {}, sweep: async () => {} },
    guard: { add() {}, remove() {} },
    newMark: () => `run.${++runs}`,
    newCgroup: () => undefined,
    random: () => 0,
    onFault: (error: unknown) => expect(error).toBeUndefined(),
  };
  const orchestrator = new Orchestrator(options as unknown as OrchestratorOptions);
  const alive = (): number[] => host.table.flatMap(({ isAlive, pid }) => (isAlive ? pid : []));
  const { binaries } = options.state;
  const log = (): string => logged;
  return { host, book, orchestrator, alive, binaries, log, used: () => used && [...used] };
}

test("Orchestrator.start() waits for the end of a process under the same id whose start was undone (R2)", async () => {
  const { host, book, orchestrator, alive } = scene();
  host.snapshotMs = 5;
  orchestrator.add(idOf(1), "/opt/ping", {});
  await orchestrator.start(idOf(1), undefined);
  const [before] = alive();
  book.isFull = true;
  orchestrator.commit();
  book.isFull = false;
  orchestrator.add(idOf(1), "/opt/ping", {});
  const batch = orchestrator.start(idOf(1), undefined);
  await host.settle();
  expect(alive()).toEqual([before as number]);
  await host.run(100);
  expect((await batch).error).toBeUndefined();
  const [after, ...others] = alive();
  expect([after === before, others]).toEqual([false, []]);
});

test("Orchestrator.clear() leaves nothing that was started when another one could not be remembered (R15)", async () => {
  const { host, book, orchestrator, alive } = scene();
  host.snapshotMs = 5;
  host.onSpawn = (process) => {
    if (host.processes.length === 1) process.react = dieOf("SIGINT");
  };
  orchestrator.add(idOf(1), "/opt/ping", {});
  await orchestrator.start(idOf(1), undefined);
  const first = orchestrator.clear();
  orchestrator.add(idOf(2), "/opt/pong", {}); // it has to be killed: the second takes longer
  await orchestrator.start(idOf(2), undefined);
  orchestrator.commit();
  const second = orchestrator.clear();
  const refused = first.catch((error: unknown) => error);
  book.isFull = true;
  await host.run(100);
  expect(await refused).toMatchObject({ message: "Cannot clear" });
  book.isFull = false;
  const started = orchestrator.start(idOf(1), undefined).catch((error: unknown) => error);
  await host.run(10_000);
  await second;
  expect([alive(), book.durable.instances]).toEqual([[], []]);
  expect(await started).toMatchObject({ code: "wrong_state" });
});

test("Orchestrator.shutDown() ends what an instance that was removed has left behind", async () => {
  const { host, orchestrator, alive } = scene();
  orchestrator.add(idOf(1), "/opt/ping", {});
  await orchestrator.start(idOf(1), undefined);
  const [leader] = host.processes;
  leader?.fork({ session: true });
  leader?.exit();
  await host.run(1);
  orchestrator.remove(idOf(1));
  expect(alive()).toHaveLength(1);
  const ended = orchestrator.shutDown();
  let left: number[] | undefined;
  void ended.then(() => (left = alive()));
  await host.run(1_500);
  expect(left).toEqual([]);
});

test("Orchestrator.shutDown() waits for the end of a start that it could not remember", async () => {
  const { host, book, orchestrator, alive } = scene();
  host.snapshotMs = 5;
  orchestrator.add(idOf(1), "/opt/ping", {});
  await orchestrator.start(idOf(1), undefined);
  book.isFull = true;
  let left: number[] | undefined;
  void orchestrator.shutDown().then(() => (left = alive()));
  await host.run(1_500);
  expect(left).toEqual([]);
});

test("Orchestrator.update() lets an uploaded program go that it puts another one in the place of", async () => {
  const { host, book, orchestrator, used } = scene();
  const upload = { hash: "abc", bytes: 1, origin: "ping" };
  orchestrator.add(idOf(1), "/binaries/abc", {}, upload);
  await orchestrator.commit();
  book.isFull = true;
  orchestrator.update(idOf(1), "/opt/ping", {});
  const { batch } = orchestrator;
  await host.run(1_000);
  expect([batch.error?.code, used()]).toEqual(["io", ["abc"]]); // it could not be remembered
  book.isFull = false;
  orchestrator.update(idOf(1), "/opt/ping", {});
  await host.run(1_000);
  expect(used()).toEqual([]);
});

test("Orchestrator.collect() tells of a folder that it may not look into, which is no defect", async () => {
  const { binaries, orchestrator, log } = scene();
  binaries.collect = () => {
    throw Object.assign(new Error("EACCES: permission denied, scandir"), { code: "EACCES" });
  };
  await orchestrator.collect();
  expect(log()).toContain("WARN run: orchestrator::memory: cannot remove unused programs");
  expect(log()).toContain("permission denied");
});
