import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { ClosedPipe } from "../src/files/stdout.ts";
import { type FakeConnection, FakeDaemon } from "./support/fake-daemon.ts";
import { A, B, friendly, INFO, type Ran, run, type Setting, STOPPED } from "./support/typist.ts";

const CLI = join(import.meta.dir, "..", "src", "cli.ts");
const MAIN = join(import.meta.dir, "../src/main.ts");

describe("main() sends and prints", () => {
  const table: [line: string, out: string, ...requests: unknown[]][] = [
    ["version", "server version: 0.1.0\n", "Version"],
    [`runtime start ${A}`, `started instance ${A}\n`, { Start: { id: A, priority: null } }],
    [
      "runtime start fac7 --priority high",
      `started instance ${A}\n`,
      "Info",
      { Start: { id: A, priority: "high" } },
    ],
    [`runtime stop ${A.toUpperCase()}`, `stopped instance ${A}\n`, { Stop: A }],
    ["runtime stop 0195fc7b-4", `stopped instance ${B}\n`, "Info", { Stop: B }],
    [`runtime remove ${A}`, `removed instance ${A}\n`, { Remove: A }],
    [
      `runtime add ping --id ${A} --name ping --privileged`,
      `added instance ${A}\n`,
      { Add: { id: A, path: "/home/user/ping", name: "ping", privileged: true } },
    ],
    [
      `link add --type a::Ping --to ${A}`,
      `linked a::Ping to ${A}\n`,
      { Link: { type_name: "a::Ping", to: A } },
    ],
    [
      "link add --from fac7 --type a::Ping --to localhost:2661",
      "linked a::Ping to 127.0.0.1:2661\n",
      "Info",
      { Link: { from: A, type_name: "a::Ping", to: "127.0.0.1:2661" } },
    ],
    [
      `link remove --type a::Ping --to ${A}`,
      `unlinked a::Ping from ${A}\n`,
      { Unlink: { type_name: "a::Ping", to: A } },
    ],
    ["clear", "cleared orchestrator state\n", "Clear"],
    [
      "runtime list",
      "ID                                    NAME  BINARY     STATE              PRIVILEGED  CONNECTED  MESSAGES\n" +
        `${A}  ping  /opt/ping  running (pid 123)  no          no         0\n` +
        `${B}  pong  /opt/ping  stopped            no          no         0\n`,
      "Info",
    ],
    [
      "link list",
      "FROM   TYPE     TO                                    ROUTED  DELIVERED  DROPPED  QUEUED  QUEUE  ON-FULL\n" +
        `(any)  a::Ping  ${B}  1       1          0        0       4MiB   drop-oldest\n`,
      "Info",
    ],
  ];
  test.each(table)("%s", async (line, out, ...requests) => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const ran = await run([...line.split(" "), "--socket", daemon.path]);
    expect(ran).toEqual({ code: 0, out, err: "" });
    expect(seen).toEqual(requests);
  });

  test("runtime add without --id makes a new one", async () => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const { out } = await run(["runtime", "add", "/opt/ping", "--socket", daemon.path]);
    const id = /^added instance ([0-9a-f-]{36})\n$/.exec(out)?.[1] as string;
    expect(seen[0]).toEqual({ Add: { id, path: "/opt/ping", privileged: false } });
  });

  test("runtime add --start names the instance that cannot be started", async () => {
    using daemon = new FakeDaemon((body, connection) => {
      const request: unknown = JSON.parse(String(body));
      if (request === "Info") connection.ok(INFO);
      else if (!JSON.stringify(request).startsWith('{"Start"')) connection.ok(null);
      else {
        const subject = `Cannot start instance "${A}": Cannot run "/opt/ping"`;
        connection.refuse("cannot_run", subject, "no such file or directory");
      }
    });
    const add = (...options: string[]): Promise<Ran> =>
      run([
        "runtime",
        "add",
        "/opt/ping",
        "--id",
        A,
        "--start",
        ...options,
        "--socket",
        daemon.path,
      ]);
    const subject = (name: string): string =>
      `Cannot start instance "${name}" (${A}): Cannot run "/opt/ping"`;
    const chosen = await add();
    expect([chosen.code, chosen.out]).toEqual([1, `added instance ${A}\n`]);
    expect(chosen.err).toStartWith(`named ping\nerror: ${subject("ping")}\ncaused by: no such`);
    expect((await add("--name", "own")).err).toStartWith(`error: ${subject("own")}\n`);
    expect(JSON.parse((await add("--json")).err).error.message).toBe(subject("ping"));
  });

  test.each(["start", "stop", "remove"])(
    "runtime %s names the instance that it cannot do it to",
    async (verb) => {
      using daemon = new FakeDaemon((body, connection) => {
        const request: unknown = JSON.parse(String(body));
        if (request === "Info") connection.ok(INFO);
        else connection.refuse("wrong_state", `Cannot ${verb} instance "${A}": no`);
      });
      for (const named of ["ping", "fac7", A]) {
        const ran = await run(["runtime", verb, named, "--socket", daemon.path]);
        expect([ran.code, ran.err.split("\n")[0]]).toEqual([
          1,
          `error: Cannot ${verb} instance "ping" (${A}): no`,
        ]);
      }
    },
  );

  test("runtime add takes a path that cannot be looked at as it is", async () => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const path = "x".repeat(300);
    const argv = ["runtime", "add", path, "--name", "x", "--socket", daemon.path];
    expect(await run(argv)).toMatchObject({ code: 0 });
    expect(seen).toEqual([{ Add: expect.objectContaining({ path: `/home/user/${path}` }) }]);
  });

  test("runtime add without --name tells people which one the daemon has chosen", async () => {
    using daemon = friendly([]);
    const add = (...options: string[]): Promise<Ran> =>
      run(["runtime", "add", "/opt/ping", "--id", A, ...options, "--socket", daemon.path]);
    const out = `added instance ${A}\n`;
    expect(await add()).toEqual({ code: 0, out, err: "named ping\n" });
    expect(await add("--name", "ping")).toEqual({ code: 0, out, err: "" });
    for (const option of ["--quiet", "--json"]) expect((await add(option)).err).toBe("");
    using reticent = new FakeDaemon((body, connection) => {
      if (String(body) === '"Info"') connection.refuse("bad_request", "No");
      else connection.ok(null);
    });
    const argv = ["runtime", "add", "/opt/ping", "--id", A, "--socket", reticent.path];
    expect(await run(argv)).toEqual({ code: 0, out, err: "" });
  });

  test("runtime add --copy sends the file and says how much", async () => {
    const seen: number[] = [];
    using daemon = new FakeDaemon((body, connection) => {
      seen.push(body.length);
      connection.ok(null);
    });
    writeFileSync(join(daemon.folder, "ping"), Buffer.alloc(1000));
    const argv = ["runtime", "add", "ping", "--name", "ping", "--copy", "--id", A];
    expect(await run([...argv, "--socket", daemon.path], { folder: daemon.folder })).toEqual({
      code: 0,
      out: `added instance ${A} (sent 1000 bytes)\n`,
      err: "sent 100 % (1000 of 1000 bytes)\n",
    });
    expect(seen.at(-1)).toBe(1000);
  });

  describe("runtime add --env-file", () => {
    const add = async (text: string): Promise<{ ran: Ran; seen: unknown[] }> => {
      const seen: unknown[] = [];
      using daemon = friendly(seen);
      writeFileSync(join(daemon.folder, "ping.env"), text);
      const argv = ["/opt/ping", "--name", "ping", "--id", A, "--env-file", "ping.env"];
      const all = ["runtime", "add", ...argv, "--env", "B=3", "--socket", daemon.path];
      return { ran: await run(all, { folder: daemon.folder }), seen };
    };

    test("gives the variables of the file, --env is stronger", async () => {
      const { ran, seen } = await add("# ours\nexport A='1 # one'\nB=2 # two\nC=\n");
      expect([ran.code, ran.err]).toEqual([0, ""]);
      const env = { A: "1 # one", B: "3", C: "" };
      expect(seen).toEqual([{ Add: expect.objectContaining({ env }) }]);
    });

    test("takes any name of a variable", async () => {
      const { seen } = await add("__proto__=1\nconstructor=2\n");
      expect(JSON.stringify(seen)).toContain('"env":{"__proto__":"1","constructor":"2","B":"3"}');
    });

    test.each([
      ["A=1\nSECRET\n", "line 2: it is not NAME=value"],
      ["=1\n", "line 1: it is not NAME=value"],
      ["A=1\n\nB='x\n", "line 3: its quotes do not match"],
      ['A="x\ny"\n', "line 1: its quotes do not match"],
      ["A-B=1\n", '"A-B" is not the name of a variable'],
    ])("refuses %j with 2, and adds nothing", async (text, fault) => {
      const { ran, seen } = await add(text);
      const err = `error: Cannot use --env-file "ping.env": ${fault}\n`;
      expect([ran, seen]).toEqual([{ code: 2, out: "", err }, []]);
    });

    test("that cannot be read is refused with 2", async () => {
      const argv = ["runtime", "add", "/opt/ping", "--env-file", "/nonexistent/env"];
      const { code, err } = await run(argv);
      expect(code).toBe(2);
      expect(err).toStartWith('error: Cannot read --env-file "/nonexistent/env"\ncaused by: ');
    });
  });

  test("runtime add says itself what the daemon would refuse as too long", async () => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const add = (...more: string[]): Promise<Ran> =>
      run(["runtime", "add", ...more, "--name", "ping", "--socket", daemon.path]);
    const half = "x".repeat(40_000);
    const refused = await run(
      ["runtime", "add", "/opt/ping", "--socket", daemon.path, "--", half, half],
      {},
    );
    expect([refused.code, refused.err]).toEqual([
      2,
      "error: Cannot use the arguments: they are 80002 bytes long, more than 65536\n" +
        "hint: write them into a script, and add that\n",
    ]);
    expect((await add("/opt/ping", "--env", `A=${half}`, "--env", `B=${half}`)).err).toBe(
      "error: Cannot use the environment: it is 80006 bytes long, more than 65536\n" +
        "hint: let a script set the variables, and add that\n",
    );
    const long = `${"x/".repeat(2_043)}ping`; // fits alone, and not behind the user's folder
    const asPath = "error: Cannot use PATH: as a whole, it is longer than 4095 bytes\n";
    expect((await add(long)).err).toStartWith(asPath);
    expect((await add("/opt/ping", "--cwd", long)).err).toStartWith(
      asPath.replace("PATH", "--cwd"),
    );
    expect(seen).toEqual([]);
  });

  test("the environment names the daemon, and --socket comes first", async () => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const named = { VEECLE_ORCHESTRATOR_SOCKET: daemon.path };
    expect((await run(["version"], { env: named })).code).toBe(0);
    const other = { VEECLE_ORCHESTRATOR_SOCKET: "/nonexistent/socket" };
    expect((await run(["version", "--socket", daemon.path], { env: other })).code).toBe(0);
    const bad = await run(["version"], { env: { VEECLE_ORCHESTRATOR_SOCKET: "x" } });
    expect(bad.code).toBe(2);
    expect(bad.err).toStartWith("error: Cannot use VEECLE_ORCHESTRATOR_SOCKET\ncaused by: ");
    const { err, code } = await run(["version"], { env: { XDG_RUNTIME_DIR: "/nonexistent" } });
    expect(code).toBe(5);
    expect(err).toContain('"/nonexistent/veecle-orchestrator.socket"');
  });
});

describe("main() and `clear`", () => {
  const argv = (daemon: FakeDaemon): string[] => ["clear", "--socket", daemon.path];

  test("on a terminal lists what will end, and asks", async () => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const ran = await run(argv(daemon), { answer: "y" });
    expect(ran.code).toBe(0);
    expect(ran.out).toBe("cleared orchestrator state\n");
    expect(ran.err).toBe(
      "these run: ping\n" +
        "This stops 1 instance and removes 2 instances and 1 link.\nContinue? [y/N] ",
    );
    expect(seen).toEqual(["Info", "Clear"]);
  });

  test.each(["", "n", "no", "yup"])("takes %p for a no", async (answer) => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    const ran = await run(argv(daemon), { answer });
    expect([ran.code, ran.out]).toEqual([1, ""]);
    expect(ran.err).toEndWith("nothing was cleared\n");
    expect(seen).toEqual(["Info"]);
  });

  test("does not ask with -y, nor when there is nothing to end", async () => {
    const seen: unknown[] = [];
    using daemon = friendly(seen);
    expect((await run([...argv(daemon), "-y"], { answer: "n" })).err).toBe("");
    expect(seen).toEqual(["Clear"]);
    using empty = new FakeDaemon((body, connection) =>
      connection.ok(String(body) === '"Info"' ? { ...INFO, runtimes: {}, routes: [] } : null),
    );
    expect(await run(argv(empty), { answer: "n" })).toMatchObject({ code: 0, err: "" });
  });
});

describe("main() and `runtime stdout`", () => {
  const argv = (daemon: FakeDaemon): string[] => ["runtime", "stdout", A, "--socket", daemon.path];

  test("prints raw lines until the daemon ends the stream", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      for (const line of ["one", "", "\x1b[31mred"]) connection.frame(line);
      connection.frame(Buffer.of(0xff, 0x00));
      connection.end();
    });
    const ran = await run(argv(daemon));
    expect(ran).toEqual({ code: 0, out: "one\n\n\x1b[31mred\n\xff\0\n", err: "" });
  });

  test("says that the daemon is gone when that is why the stream has ended", async () => {
    const daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      connection.frame("one");
      connection.end();
      daemon[Symbol.dispose]();
    });
    const ran = await run(argv(daemon));
    expect(ran).toMatchObject({ code: 5, out: "one\n" });
    expect(ran.err).toStartWith("error: Lost the orchestrator while following the output: ");
  });

  test("Ctrl-C ends it with 130", async () => {
    const interrupted = Promise.withResolvers<void>();
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      connection.frame("one");
    });
    const write = (): void => interrupted.resolve();
    const ran = await run(argv(daemon), { interrupted: interrupted.promise, write });
    expect(ran).toEqual({ code: 130, out: "one\n", err: "" });
    await daemon.closed;
  });

  test("a reader that is gone ends it with 0, even while nothing is written", async () => {
    using daemon = new FakeDaemon((_body, connection) => connection.ok(null));
    const ran = await run(argv(daemon), { outputClosed: Promise.resolve() });
    expect(ran).toEqual({ code: 0, out: "", err: "" });
    await daemon.closed;
  });

  test("a write to a closed pipe ends it with 0", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      connection.frame("one");
    });
    const write = (): void => {
      throw new ClosedPipe();
    };
    expect(await run(argv(daemon), { write })).toEqual({ code: 0, out: "", err: "" });
    await daemon.closed;
  });
});

describe("main() fails", () => {
  const refused = (code: string, ...chain: string[]): FakeDaemon =>
    new FakeDaemon((_body, connection) => connection.refuse(code, ...chain));

  test("with the chain, a hint, and exit code 1 where the daemon refuses", async () => {
    using daemon = refused("cannot_run", "Cannot start instance", "no such file or directory");
    expect(await run(["runtime", "start", A, "--socket", daemon.path])).toEqual({
      code: 1,
      out: "",
      err:
        "error: Cannot start instance\ncaused by: no such file or directory\n" +
        `hint: remove it with "bun run cli runtime remove ${A}", and add it with the right path\n`,
    });
    const chain = [
      'Cannot start instance: Cannot run "/x"',
      'Cannot enter the working folder "/n"',
    ];
    using elsewhere = refused("cannot_run", ...chain, "no such file or directory");
    expect((await run(["runtime", "start", A, "--socket", elsewhere.path])).err).toEndWith(
      'hint: make that folder, or add it with another --cwd; see "bun run cli runtime add --help"\n',
    );
  });

  test("with 2 for a wrong command line", async () => {
    for (const command of ["logs", "events"]) {
      using daemon = friendly([]);
      const times = ["--since", "1s", "--until", "2s", "--socket", daemon.path];
      const err = "error: Cannot use --until: it lies before --since\n";
      expect(await run([command, ...times])).toEqual({ code: 2, out: "", err });
    }
    expect(await run(["runtime", "lst"])).toEqual({
      code: 2,
      out: "",
      err: 'error: Cannot run "runtime lst": no such command\nhint: did you mean "runtime list"?\n',
    });
  });

  test("with 4 for an instance that does not exist, or is ambiguous", async () => {
    using daemon = friendly([]);
    const missing = await run(["runtime", "stop", "ffff", "--socket", daemon.path]);
    expect([missing.code, missing.err.split("\n")[0]]).toEqual([
      4,
      'error: Cannot find instance "ffff": it is no name, and no id begins or ends with it',
    ]);
    expect((await run(["runtime", "stop", "0195", "--socket", daemon.path])).code).toBe(4);
    using other = refused("not_found", "Cannot stop instance: not registered");
    expect((await run(["runtime", "stop", A, "--socket", other.path])).code).toBe(4);
  });

  test("with 5, and no advice to start a daemon where none can listen", async () => {
    const folder = await run(["version", "--socket", "/tmp"]);
    expect(folder.code).toBe(5);
    expect(folder.err).toEndWith(
      "hint: it is no socket: name the daemon's with --socket, or in VEECLE_ORCHESTRATOR_SOCKET\n",
    );
    const host = await run(["version", "--socket", "nowhere.invalid:2661"], {
      deadlines: { connectMs: 20_000 },
    });
    expect(host.err).toEndWith(
      "caused by: no such host\n" +
        "hint: name the daemon's with --socket, or in VEECLE_ORCHESTRATOR_SOCKET\n",
    );
  });

  test("with 5 within a second if the daemon is dead, naming socket and remedy (R30)", async () => {
    const start = performance.now();
    expect(await run(["version", "--socket", "/nonexistent/socket"])).toEqual({
      code: 5,
      out: "",
      err:
        'error: Cannot reach the orchestrator at "/nonexistent/socket"\n' +
        "caused by: no such file or directory\n" +
        'hint: start one with "bun run daemon --control-socket /nonexistent/socket"\n',
    });
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test.each([
    "version",
    "clear",
    "runtime list",
    `runtime stop ${A}`,
    "runtime stop fac7",
    `runtime stdout ${A}`,
    "runtime add ping --copy",
  ])("with 6 if the daemon hangs: %s (R30)", async (line) => {
    using daemon = new FakeDaemon(() => {});
    writeFileSync(join(daemon.folder, "ping"), "x");
    const setting = { deadlines: { answerMs: 50 }, folder: daemon.folder };
    const ran = await run([...line.split(" "), "--socket", daemon.path], setting);
    expect([ran.code, ran.out]).toEqual([6, ""]);
    expect(ran.err).toStartWith(
      `error: Cannot reach the orchestrator at ${JSON.stringify(daemon.path)}\ncaused by: no answer within`,
    );
  });

  test("with 6 if the daemon takes no token, without asking a second time (R30)", async () => {
    let connections = 0;
    const socket = { open: () => void connections++, data: () => {} };
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket });
    using folder = new FakeDaemon(() => {});
    const token = join(folder.folder, "token");
    writeFileSync(token, "0".repeat(64), { mode: 0o600 });
    const line = ["runtime", "start", A, "--socket", `127.0.0.1:${silent.port}`];
    const ran = await run([...line, "--token-file", token], { deadlines: { answerMs: 50 } });
    expect([ran.code, ran.out, connections]).toEqual([6, "", 1]);
  });

  test("with 7 where permission is denied", async () => {
    using daemon = refused("permission_denied", "Cannot serve you");
    expect((await run(["version", "--socket", daemon.path])).code).toBe(7);
  });

  test("with 1 if the answer has an unknown form", async () => {
    const answer = (_body: Buffer, connection: FakeConnection): void => connection.ok({ a: 1 });
    using daemon = new FakeDaemon(answer);
    const ran = await run(["runtime", "list", "--socket", daemon.path]);
    expect(ran.code).toBe(1);
    expect(ran.err).toStartWith("error: Cannot read the orchestrator's state: unknown form\n");
  });

  test("with colour on a screen only, and not if anybody minds", async () => {
    const red = "\x1b[1;31merror:\x1b[0m";
    const first = async (argv: string[], setting: Setting): Promise<string> =>
      (await run(argv, setting)).err.split(" ")[0] as string;
    expect(await first(["x"], { screen: true })).toBe(red);
    expect(await first(["x"], { screen: false })).toBe("error:");
    expect(await first(["x", "--no-color"], { screen: true })).toBe("error:");
    expect(await first(["x"], { screen: true, env: { NO_COLOR: "1" } })).toBe("error:");
    expect(await first(["x"], { screen: true, env: { NO_COLOR: "" } })).toBe(red);
  });
});

describe("the process", () => {
  const spawn = (argv: readonly string[]) =>
    Bun.spawn([process.execPath, CLI, ...argv], {
      env: { PATH: process.env["PATH"] ?? "" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });

  test("prints a page with exit code 0, a fault with 2", async () => {
    const help = spawn(["help"]);
    expect(await help.stdout.text()).toStartWith("Runs programs and routes");
    expect(await help.exited).toBe(0);
    const fault = spawn(["nope"]);
    expect(await fault.stderr.text()).toStartWith('error: Cannot run "nope": no such command\n');
    expect(await fault.exited).toBe(2);
  });

  test("works in a folder that was removed, as far as it needs none", async () => {
    using daemon = friendly([]);
    const folder = join(daemon.folder, "gone");
    const within = (...argv: string[]) =>
      Bun.spawn(
        ["sh", "-c", 'mkdir "$0"; cd "$0"; rmdir "$0"; exec "$@"', folder].concat(
          [process.execPath, CLI, ...argv],
          ["--socket", daemon.path],
        ),
        { stdio: ["ignore", "pipe", "pipe"] },
      );
    const list = within("ps", "-q");
    expect([await list.stdout.text(), await list.stderr.text()]).toEqual([`${A}\n${B}\n`, ""]);
    const add = within("runtime", "add", "./ping");
    expect([await add.stderr.text(), await add.exited]).toEqual([
      "error: Cannot find the current folder\ncaused by: no such file or directory\n" +
        "hint: it was removed: go to one that is there\n",
      1,
    ]);
  });

  test("writes all of a long answer, however slow its reader", async () => {
    const runtimes = Object.fromEntries(
      Array.from({ length: 5000 }, (_, n) => [
        `${A.slice(0, -4)}${String(n).padStart(4, "0")}`,
        STOPPED,
      ]),
    );
    using daemon = new FakeDaemon((_body, connection) => connection.ok({ ...INFO, runtimes }));
    const list = Bun.spawn(
      [
        "sh",
        "-c",
        `"$@" | { sleep 0.3; wc -l; }`,
        "sh",
        process.execPath,
        CLI,
        "runtime",
        "list",
        "--socket",
        daemon.path,
      ],
      { stdout: "pipe" },
    );
    expect((await list.stdout.text()).trim()).toBe("5001");
  });

  test.each([
    [">&-", "standard output is closed"],
    [">/dev/full", "the disk is full"],
  ])("says with 1 that nothing could be written: %s", async (to, cause) => {
    using daemon = friendly([]);
    const at = ["--socket", daemon.path];
    const redirected = (argv: readonly string[], where: string) =>
      Bun.spawn(["sh", "-c", `exec "$@" ${where}`, "sh", process.execPath, MAIN, ...argv], {
        stdio: ["ignore", "pipe", "pipe"],
      });
    const pages = [["--help"], ["--version"], ["daemon", "--help"], ["daemon", "--version"]];
    for (const argv of [...pages, ["ps", ...at], ["ps", "--json", ...at]]) {
      const { stderr, exited } = redirected(argv, to);
      const err = await stderr.text();
      expect([argv[0], await exited]).toEqual([argv[0], 1]);
      for (const text of ["Cannot write output", cause]) expect(err).toContain(text);
    }
    expect(await redirected(["ps", ...at], `${to} 2>&-`).exited).toBe(1);
    expect(await redirected(["ps", ...at], "2>&-").exited).toBe(0);
    expect(await redirected(["nope"], "2>&-").exited).toBe(2);
  });

  test("ends at Ctrl-C with 130, and when its reader goes away with 0 (R30)", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      connection.frame("ready");
    });
    const argv = ["runtime", "stdout", A, "--socket", daemon.path];
    const interrupted = spawn(argv);
    const reader = interrupted.stdout.getReader();
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("ready\n");
    interrupted.kill("SIGINT");
    expect(await interrupted.exited).toBe(130);

    const silent = Bun.spawn(
      ["sh", "-c", `{ "$@"; echo $? >&2; } | head -1`, "sh", process.execPath, CLI, ...argv],
      { stdout: "pipe", stderr: "pipe" },
    );
    expect(await silent.stdout.text()).toBe("ready\n");
    expect(await silent.stderr.text()).toBe("0\n");
  });
});
