import { expect, test } from "bun:test";
import { closeSync, constants, openSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

import { FakeDaemon } from "../../support/fake-daemon.ts";
import { Screen } from "../../support/screen.ts";
import { A, INFO, run, STOPPED } from "../../support/typist.ts";
import { until } from "../../support/wire.ts";

/** A daemon that holds nothing yet, and refuses what is added as another `up` was faster. */
function outpacing(): FakeDaemon {
  return new FakeDaemon((body, connection) => {
    const request: unknown = JSON.parse(String(body));
    if (request === "Info") connection.ok({ ...INFO, runtimes: {}, routes: [] });
    else connection.refuse("already_exists", 'Cannot add instance "01": the name "ping" is taken');
  });
}

test("plan does not read a file that is far too long", async () => {
  using daemon = outpacing();
  const file = join(daemon.folder, "film.json");
  writeFileSync(file, "");
  truncateSync(file, 4 * 2 ** 30); // more than a text can hold; takes no room
  const ran = await run(["plan", file], { folder: daemon.folder });
  expect([ran.code, ran.err.split("\n")[0]]).toEqual([
    1,
    `film.json: ${JSON.stringify(file)} cannot be read: it is longer than 1048576 characters`,
  ]);
});

test("up tells of all programs that are not as they have to be", async () => {
  using daemon = outpacing();
  const names = Array.from({ length: 20 }, (_, i) => `p${i}`);
  const text = names.map((name) => `[instances.${name}]\npath = '${name}'\n`).join("");
  writeFileSync(join(daemon.folder, "orchestrator.toml"), text);
  const { code, err } = await run(["up", "--socket", daemon.path], { folder: daemon.folder });
  const lines = err.split("\n");
  expect([code, lines[0], lines[20], lines[21]]).toEqual([
    1,
    "error: Cannot apply the manifest: 20 programs cannot be run; nothing was changed",
    `caused by: p19: no such file: ${daemon.folder}/p19`,
    "hint: mend their paths, or what is there",
  ]);
});

test("plan --json tells all faults of a manifest", async () => {
  using daemon = outpacing();
  const text = Array.from({ length: 50 }, (_, i) => `key${i} = 1\n`).join("");
  writeFileSync(join(daemon.folder, "orchestrator.toml"), text);
  const { err } = await run(["plan", "--json"], { folder: daemon.folder });
  const { causes } = JSON.parse(err).error;
  expect([causes.length, causes[49]]).toEqual([
    50,
    expect.stringContaining("orchestrator.toml:50:1: key49: there is no such key"),
  ]);
});

test("up tells how far it came when the daemon dies", async () => {
  const daemon = new FakeDaemon((body, connection) => {
    const request: unknown = JSON.parse(String(body));
    if (typeof request === "object") hasAdded = true;
    if (request === "Info" && hasAdded) connection.socket.terminate();
    else connection.ok(request === "Info" ? { ...INFO, runtimes: {}, routes: [] } : null);
  });
  let hasAdded = false;
  using _ = daemon;
  writeFileSync(join(daemon.folder, "ping"), "", { mode: 0o700 });
  writeFileSync(join(daemon.folder, "orchestrator.toml"), "[instances.ping]\npath = 'ping'\n");
  const ran = await run(["up", "--socket", daemon.path], { folder: daemon.folder });
  expect(ran.code).toBe(5);
  expect(ran.err).toStartWith(
    "done: add ping\nnot done: start ping\nhint: type it again to go on from there\n" +
      `error: Cannot reach the orchestrator at "${daemon.path}"\n`,
  );
});

test("up says that somebody else was faster, and what to do", async () => {
  using daemon = outpacing();
  writeFileSync(join(daemon.folder, "ping"), "", { mode: 0o700 });
  writeFileSync(join(daemon.folder, "orchestrator.toml"), "[instances.ping]\npath = 'ping'\n");
  const ran = await run(["up", "--socket", daemon.path], { folder: daemon.folder });
  expect(ran.code).toBe(1);
  expect(ran.err).toBe(
    'error: Cannot add instance "01": the name "ping" is taken\n' +
      "hint: somebody has changed that since the plan was made, perhaps another up or down\n" +
      "done: nothing\nnot done: add ping, start ping\nhint: type it again to go on from there\n",
  );
});

test("down proposes what can be pasted into a shell", async () => {
  const running = { ...STOPPED, state: "running", pid: 5, env: [], owner: "demo", hash: null };
  using daemon = new FakeDaemon((_body, connection) =>
    connection.ok({ ...INFO, runtimes: { [A]: running }, routes: [] }),
  );
  writeFileSync(join(daemon.folder, "my bench.toml"), "name = 'demo'\n");
  const argv = ["down", "my bench.toml", "--socket", daemon.path];
  const { code, err } = await run(argv, { folder: daemon.folder });
  expect([code, err.split("\n")[1]]).toEqual([
    2,
    "hint: add -y: bun run cli down 'my bench.toml' -y",
  ]);
});

/** Makes a pipe with a name, which somebody has to open for writing before anything is read. */
function makePipe(folder: string, name: string): string {
  const path = join(folder, name);
  expect(Bun.spawnSync({ cmd: ["mkfifo", path] }).success).toBe(true);
  return path;
}

/** The number of a pipe's end for writing, as soon as somebody opens the other one. */
function writerOf(pipe: string): Promise<number> {
  return until("the pipe is opened", () => {
    try {
      return openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch {
      return undefined; // nobody reads it yet
    }
  });
}

test.each([
  ["orchestrator.toml", ["plan"]],
  ["variables", ["runtime", "add", "/bin/true", "--env-file", "variables"]],
])("Ctrl-C is heard while the pipe %s waits for what is written to it", async (name, words) => {
  using daemon = outpacing();
  const pipe = makePipe(daemon.folder, name);
  await using screen = new Screen([...words, "--socket", daemon.path], { folder: daemon.folder });
  const writer = await writerOf(pipe);
  screen.type("\x03");
  expect(await screen.ended()).toBe(130);
  closeSync(writer);
});

test("A pipe is read as a file is, also one that another file names", async () => {
  using daemon = outpacing();
  const pipes = ["orchestrator.toml", "more.toml"].map((name) => makePipe(daemon.folder, name));
  const texts = ["include = ['more.toml']\n", "[instances.p]\npath = '/bin/true'\n"];
  const ran = run(["plan", "--socket", daemon.path], { folder: daemon.folder });
  for (const [i, text] of texts.entries()) {
    const writer = await writerOf(pipes[i] as string);
    writeSync(writer, text);
    closeSync(writer);
  }
  expect(await ran).toMatchObject({ code: 0, err: "" });
  expect((await ran).out).toContain("+ add instance p (/bin/true)\n");
});
