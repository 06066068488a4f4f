import { describe, expect, test } from "bun:test";

import { FakeDaemon } from "../support/fake-daemon.ts";
import { INFO, run } from "../support/typist.ts";

describe("No command", () => {
  test("says where no daemon answers, and how to start one", async () => {
    const ran = await run(["--socket", "/nonexistent/socket"]);
    expect(ran.code).toBe(0);
    expect(ran.out).toStartWith("No orchestrator answers at /nonexistent/socket: no such file");
    expect(ran.out).toContain(
      "\n  bun run daemon --control-socket /nonexistent/socket  start one\n",
    );
    const env = { VEECLE_ORCHESTRATOR_SOCKET: "/nonexistent/socket" };
    expect((await run([], { env })).out).toContain("\n  bun run daemon      start one\n");
  });

  test("advises to start none where one hangs", async () => {
    using daemon = new FakeDaemon(() => {});
    const deadlines = { connectMs: 50, answerMs: 50 };
    const ran = await run(["--socket", daemon.path], { deadlines });
    expect(ran.out).toStartWith(`No orchestrator answers at ${daemon.path}: no answer within`);
    expect(ran.out).toContain("\n\n  bun run cli doctor  look for what is in its way\n");
  });

  test("says what a daemon holds, and what may be typed next", async () => {
    using daemon = new FakeDaemon((_body, connection) => connection.ok(INFO));
    const ran = await run(["--socket", daemon.path]);
    expect(ran.code).toBe(0);
    expect(ran.out).toContain("(process 1): 2 instances, 1 running, 1 link.\n");
    expect(ran.out).toContain("  bun run cli ps ");
    expect(ran.out).toContain("  it does not run\n");
    const json = await run(["--json", "--socket", daemon.path]);
    expect(JSON.parse(json.out).daemon).toEqual({ address: daemon.path, pid: 1 });
    // `systemctl status` means this, and so does ours.
    expect(await run(["status", "--socket", daemon.path])).toEqual(ran);
    expect(await run(["status", "--json", "--socket", daemon.path])).toEqual(json);
  });

  test("with something that is no option is refused", async () => {
    expect((await run(["--nonsense"])).code).toBe(2);
    expect((await run(["--", "x"])).code).toBe(2);
  });
});

describe("A daemon of another version", () => {
  test.each([
    ["9.9.9", "note: the daemon is of version 9.9.9, this program of 0.1.0\n"],
    ["0.1.0", ""],
    [undefined, ""],
  ])("is told once, and works: %s", async (version, note) => {
    using daemon = new FakeDaemon((_body, connection) => connection.ok({ ...INFO, version }));
    const ran = await run(["ps", "--socket", daemon.path]);
    expect([ran.code, ran.err]).toEqual([0, note]);
    expect((await run(["ps", "-q", "--socket", daemon.path])).err).toBe("");
  });
});
