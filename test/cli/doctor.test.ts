import { expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { tryLock } from "../../src/files/lock.ts";
import { instanceFindings, limitFindings } from "../../src/cli/doctor.ts";
import type { Info } from "../../src/protocol/info.ts";
import { FakeDaemon } from "../support/fake-daemon.ts";
import { scratch } from "../support/scratch.ts";
import { INFO, run, STOPPED } from "../support/typist.ts";

function limits(files: string, nice: string): string {
  return (
    "Limit                     Soft Limit           Hard Limit           Units     \n" +
    `Max open files            ${files.padEnd(20)} 20000                files     \n` +
    `Max nice priority         ${nice.padEnd(20)} 0                    \n`
  );
}

test.each([
  ["20000", "30", false, 100, ["ok", "ok"]],
  ["unlimited", "0", true, 1_000, ["ok", "ok"]],
  ["1024", "0", false, 10, ["ok", "warning"]],
  ["1024", "40", false, 500, ["warning", "ok"]],
] as const)(
  "limitFindings() with %s files and nice %s",
  (files, nice, mayAll, instances, levels) => {
    const findings = limitFindings(limits(files, nice), mayAll, instances);
    expect(findings.map(({ level }) => level)).toEqual([...levels]);
    for (const { level, mend } of findings) expect(mend === null).toBe(level === "ok");
  },
);

test("limitFindings() says nothing where there is nothing to see", () => {
  expect(limitFindings("", false, 5)).toEqual([]);
});

test("instanceFindings() names who needs somebody, and what is lost", () => {
  const info = {
    runtimes: {
      a: { ...STOPPED, name: "well", state: "running" },
      b: { ...STOPPED, name: "ill", state: "failed", reason: "10 starts in 60 s" },
      c: { ...STOPPED, name: "slow", state: "running", held: true },
    },
    routes: [{ dropped: { full: 2, oversize: 1 } }, { dropped: {} }],
  } as unknown as Info;
  expect(instanceFindings(info, 0)).toEqual([
    {
      level: "problem",
      subject: "ill",
      text: "failed: 10 starts in 60 s",
      mend: "bun run cli why ill",
    },
    {
      level: "warning",
      subject: "slow",
      text: "running, not read from: a link is full",
      mend: "bun run cli why slow",
    },
    {
      level: "warning",
      subject: "links",
      text: "3 messages dropped on 1 link",
      mend: "bun run cli link list",
    },
  ]);
});

test("a daemon that is gone, hung or old is a problem with its remedy, and exit code 3", async () => {
  const gone = await run(["doctor", "--socket", "/nonexistent/socket"]);
  expect(gone.code).toBe(3);
  expect(gone.out).toContain('problem  daemon: Cannot reach the orchestrator at "/nonexistent/');
  expect(gone.out).toContain(
    'start one with "bun run daemon --control-socket /nonexistent/socket"\n',
  );
  const env = { VEECLE_ORCHESTRATOR_SOCKET: "/nonexistent/socket" };
  expect((await run(["doctor"], { env })).out).toContain('start one with "bun run daemon"\n');
  using hung = new FakeDaemon(() => {});
  const silent = await run(["doctor", "--socket", hung.path], { deadlines: { answerMs: 50 } });
  expect([silent.code, silent.err]).toEqual([3, ""]);
  expect(silent.out).toContain("no answer within 0.05 s\n         it is stopped or overloaded");
  using old = new FakeDaemon((body, connection) => {
    if (String(body) === '"Version"') connection.ok("0.0.9");
    else if (String(body) === '"Info"') connection.ok(INFO);
    else connection.refuse("bad_request", "Cannot parse request", "unknown request");
  });
  const { code, out } = await run(["doctor", "--socket", old.path]);
  expect(code).toBe(3);
  expect(out).toContain("warning  version: it speaks version 0.0.9, this program 0.1.0\n");
  expect(out).toContain("the daemon is older than this program: start the one of this release\n");
});

test("what is told is as wide as a screen, and what is to be typed stays one line", async () => {
  const lost = `/srv/${"state/".repeat(8)}state.db`;
  using daemon = new FakeDaemon((body, connection) =>
    connection.ok(String(body) === '"Version"' ? "0.1.0" : { ...INFO, lost_state: lost }),
  );
  const { out } = await run(["doctor", "--socket", daemon.path], { columns: 80 });
  expect(out).toContain(
    `problem  state: ${lost}\n` +
      "         was removed or replaced while the daemon uses it: it takes no changes\n" +
      "         put it back, or kill 1, and start the daemon anew\n",
  );
});

test.each([
  [
    "/proc/state.db",
    3,
    "problem  disk: 0 B free in /proc: changes are refused\n         make room, ",
  ],
  ["/nul/\0/state.db", 0, "ok       instances: "],
  [null, 0, "ok       state: nothing is remembered after the daemon's end\n"],
])("room is looked for where the daemon keeps its state: %p", async (state, code, told) => {
  using daemon = new FakeDaemon((body, connection) =>
    connection.ok(String(body) === '"Version"' ? "0.1.0" : { ...INFO, pid: process.pid, state }),
  );
  const ran = await run(["doctor", "--socket", daemon.path]);
  expect([ran.code, ran.err]).toEqual([code, ""]);
  expect(ran.out).toContain(told);
  if (state !== "/proc/state.db") expect(ran.out).not.toContain("disk: ");
});

test("a daemon whose socket was removed is told from one that does not run", async () => {
  const folder = scratch("vo-doctor-");
  const path = join(folder, "socket");
  const lock = tryLock(`${path}.lock`);
  try {
    const { code, out } = await run(["doctor", "--socket", path]);
    expect(code).toBe(3);
    expect(out).not.toContain("start one with");
    expect(out).toContain(
      `problem  socket: ${path} was removed, and process ${process.pid} still serves it\n` +
        `         kill ${process.pid}, and start the daemon anew\n`,
    );
    const asked = await run(["ps", "--socket", path]);
    expect([asked.code, asked.out]).toEqual([5, ""]);
    expect(asked.err).toContain(
      `\nhint: process ${process.pid} holds it: it is just starting or ending, or its socket was removed; ` +
        `then kill ${process.pid}, and start it anew\n`,
    );
    const { out: page } = await run(["--socket", path]);
    expect(page).not.toContain("start one");
    expect(page).toContain("bun run cli doctor  look for what is in its way");
    const document = JSON.parse((await run(["start", "x", "--json", "--socket", path])).err);
    expect(document.error.hint).toStartWith(`process ${process.pid} holds it`);
  } finally {
    lock?.release();
  }
  expect((await run(["doctor", "--socket", path])).out).not.toContain("problem  socket");
  expect((await run(["ps", "--socket", path])).err).toContain("\nhint: start one with ");
  rmSync(folder, { recursive: true });
});

test("doctor looks for room where a daemon would keep the state", async () => {
  using daemon = new FakeDaemon(() => {});
  const file = join(daemon.folder, "file");
  writeFileSync(file, "");
  const disk = async (env: Record<string, string>): Promise<string | undefined> => {
    const ran = await run(["doctor", "--socket", join(daemon.folder, "none")], { env });
    return / free in (.*)$/m.exec(ran.out)?.[1];
  };
  expect(await disk({ XDG_STATE_HOME: join(file, "state") })).toBe(file);
  expect(await disk({ XDG_STATE_HOME: "relative", HOME: daemon.folder })).toBe(daemon.folder);
  expect(await disk({})).toBeUndefined();
});

test("doctor goes on where a socket cannot be looked at", async () => {
  using daemon = new FakeDaemon(() => {});
  const file = join(daemon.folder, "file");
  writeFileSync(file, "");
  const env = { XDG_RUNTIME_DIR: join(file, "folder") };
  const ran = await run(["doctor", "--socket", join(file, "socket")], { env });
  expect([ran.code, ran.err]).toEqual([3, ""]);
  expect(ran.out).toMatch(/^problem  daemon: Cannot reach the orchestrator/m);
  expect(ran.out).toMatch(/^problem  runtime folder: .* is not there/m);
});
