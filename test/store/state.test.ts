import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import type { Address } from "../../src/address.ts";
import { ephemeralState, openState, stateFolders } from "../../src/store/state.ts";
import { refusal } from "../support/refusal.ts";
import { until } from "../support/wire.ts";

const STANDARD: Address = { kind: "unix", path: "/run/user/1/veecle-orchestrator.socket" };

let base: string;
let folders = 0;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "vo-state-"));
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

function newFolder(): string {
  return join(base, String(folders++));
}

/** Whether the system lets us see the calls of a program of ours. */
function canTrace(): boolean {
  if (Bun.which("strace") === null) return false;
  return Bun.spawnSync({ cmd: ["strace", "-o", "/dev/null", "true"] }).success;
}

describe("stateFolders()", () => {
  const named: [control: Address, name: RegExp][] = [
    [STANDARD, /^veecle-orchestrator\.socket-[0-9a-f]{12}$/],
    [{ kind: "unix", path: "/tmp/my test.socket" }, /^my-test\.socket-[0-9a-f]{12}$/],
    [{ kind: "unix", path: "/tmp/..." }, /^\.\.\.-[0-9a-f]{12}$/],
    [{ kind: "unix", path: `/tmp/${"x".repeat(90)}` }, /^x{40}-[0-9a-f]{12}$/],
    [{ kind: "tcp", host: "127.0.0.1", port: 2660 }, /^127\.0\.0\.1-2660-[0-9a-f]{12}$/],
    [{ kind: "tcp", host: "::1", port: 2660 }, /^-1-2660-[0-9a-f]{12}$/],
  ];
  test.each(named)("names that of %p", (control, name) => {
    const [outer, inner] = stateFolders(control, { HOME: "/home/me" });
    expect(outer).toBe("/home/me/.local/state/veecle-orchestrator");
    const actual = (inner as string).slice(`${outer}/`.length);
    expect(actual).toMatch(name);
  });

  test("tells sockets of one name in different folders apart, and finds each again", () => {
    const name = (path: string): string | undefined =>
      stateFolders({ kind: "unix", path }, { HOME: "/home/me" })[1];
    expect(name("/a/x.socket")).not.toBe(name("/b/x.socket"));
    expect(name("/a/x.socket")).toBe(name("/a/b/../x.socket"));
    expect(name("./x.socket")).toBe(name(join(process.cwd(), "x.socket")));
  });

  const bases: [env: Record<string, string>, expected: string][] = [
    [{ XDG_STATE_HOME: "/state", HOME: "/home/me" }, "/state/veecle-orchestrator"],
    [{ XDG_STATE_HOME: "", HOME: "/home/me" }, "/home/me/.local/state/veecle-orchestrator"],
    [{ XDG_STATE_HOME: "state", HOME: "/home/me" }, "/home/me/.local/state/veecle-orchestrator"],
  ];
  test.each(bases)("begins where %p says", (env, expected) => {
    const [outer, inner] = stateFolders(STANDARD, env);
    expect([outer, dirname(inner as string)]).toEqual([expected, expected]);
  });

  test.each([{}, { HOME: "" }, { HOME: "me" }])("is refused without a home: %p", (env) => {
    expect(refusal(() => stateFolders(STANDARD, env))).toBe(
      "misuse: Cannot tell where to keep the state: neither XDG_STATE_HOME nor HOME is an absolute path",
    );
  });
});

describe("openState()", () => {
  test.each([0o000, 0o002, 0o022, 0o077, 0o777])(
    "makes folders and files of its owner alone under umask %o (S1)",
    async (mask) => {
      const outer = join(newFolder(), "home/state");
      const inner = join(outer, "default");
      const before = process.umask(mask);
      const state = openState([outer, inner]);
      try {
        state.store.set("key", "value");
        state.store.commit();
        const upload = await state.binaries.receive();
        await upload.close();
      } finally {
        process.umask(before);
      }
      const made = [dirname(outer), outer, inner, join(inner, "binaries")];
      const modes = made.map((path) => statSync(path).mode & 0o777);
      expect(modes).toEqual([0o700, 0o700, 0o700, 0o700]);
      const files = readdirSync(inner).filter((name) => name !== "binaries");
      expect(files.toSorted()).toEqual([
        "lock",
        "reserve",
        "state.db",
        "state.db-shm",
        "state.db-wal",
      ]);
      for (const name of files) expect(statSync(join(inner, name)).mode & 0o777).toBe(0o600);
      state.close();
      expect(readdirSync(inner).toSorted()).toEqual(["binaries", "reserve", "state.db"]);
    },
  );

  test.skipIf(!canTrace())("makes every name durable that it makes, and that of an upload", () => {
    const outer = join(newFolder(), "home/state");
    const source = join(import.meta.dir, "../../src/store/state.ts");
    const program = `
      import { openState } from ${JSON.stringify(source)};
      const state = openState([process.argv[1], process.argv[1] + "/inner"]);
      const upload = await state.binaries.receive();
      await upload.finish(new Bun.CryptoHasher("sha256").digest("hex"));
      await upload.close();
      state.close();`;
    const trace = join(base, "trace");
    const calls = "trace=mkdir,mkdirat,rename,renameat,renameat2,fsync,fdatasync";
    const cmd = ["strace", "-f", "-y", "-e", calls, "-o", trace, process.execPath, "-e", program];
    expect(Bun.spawnSync({ cmd: [...cmd, outer] }).stderr.toString()).toBe("");
    const unsynced = new Set<string>();
    for (const call of readFileSync(trace, "utf8").split("\n")) {
      const [, made] = /(?:mkdir|rename).*"([^"]+)"[^"]* = 0$/.exec(call) ?? [];
      if (made?.startsWith(base) === true) unsynced.add(made);
      const [, synced] = /(?:fsync|fdatasync)\(\d+<([^>]+)>/.exec(call) ?? [];
      for (const name of unsynced) if (dirname(name) === synced) unsynced.delete(name);
    }
    expect([...unsynced]).toEqual([]);
  });

  test("finds what was there", () => {
    const folder = newFolder();
    const first = openState([folder]);
    first.store.set("key", "value");
    first.close();
    const second = openState([`${folder}/`]);
    expect(second.store.get("key")).toBe("value");
    second.close();
  });

  test("is refused while another daemon has it, which is named, and after that is not (R8)", async () => {
    const folder = newFolder();
    const source = join(import.meta.dir, "../../src/store/state.ts");
    const program = `
      import { openState } from ${JSON.stringify(source)};
      openState([process.argv[1]]); // not kept, and yet not let go of
      Bun.gc(true);
      console.log("open");
      setInterval(() => {}, 1e6);`;
    const cmd = [process.execPath, "-e", program, folder];
    const child = Bun.spawn({ cmd, stdout: "pipe", stderr: "inherit" });
    try {
      await child.stdout.getReader().read();
      const message = refusal(() => openState([folder]));
      expect(message).toBe(
        `already_exists: Cannot use the state in ${folder}: another daemon uses it (pid ${child.pid})`,
      );
    } finally {
      child.kill("SIGKILL");
    }
    await child.exited;
    const state = await until("it can be opened", () => openState([folder]));
    state.close();
  });

  const refused: [what: string, make: (path: string) => void, reason: string][] = [
    ["a link", (path) => symlinkSync(base, path), "it is a symbolic link"],
    ["a file", (path) => writeFileSync(path, ""), "it is not a folder"],
    [
      "open to others",
      (path) => {
        mkdirSync(path);
        chmodSync(path, 0o755);
      },
      "others may use it (mode 755); chmod 700 mends it",
    ],
  ];
  test.each(refused)("refuses a folder that is %s, whichever (S1)", (_, make, reason) => {
    const [outer, inner] = [newFolder(), newFolder()];
    make(outer);
    const message = `permission_denied: Cannot use the folder ${outer}: ${reason}`;
    expect(refusal(() => openState([outer]))).toBe(message);
    expect(refusal(() => openState([`${outer}/`]))).toBe(message);
    expect(refusal(() => openState([outer, inner]))).toBe(message);
    expect(refusal(() => openState([inner, outer]))).toBe(message);
  });

  test.skipIf(process.getuid?.() !== 0)("refuses a folder of another user (S1)", () => {
    const folder = newFolder();
    mkdirSync(folder, { mode: 0o700 });
    expect(Bun.spawnSync({ cmd: ["chown", "65534", folder] }).success).toBe(true);
    expect(refusal(() => openState([folder]))).toBe(
      `permission_denied: Cannot use the folder ${folder}: it belongs to user 65534`,
    );
  });

  test("lets go of the lock when the state is refused", () => {
    const folder = newFolder();
    mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(folder, "state.db"), "text");
    for (let i = 0; i < 2; i++) {
      expect(refusal(() => openState([folder]))).toStartWith("state_unusable: ");
    }
    rmSync(join(folder, "state.db"));
    openState([folder]).close();
  });
});

test("ephemeralState() keeps binaries in the folder given to it, and nothing else", async () => {
  const folder = newFolder();
  mkdirSync(folder, { mode: 0o700 });
  const state = ephemeralState(folder);
  state.store.set("key", "value");
  state.store.commit();
  expect(state.store.get("key")).toBe("value");
  expect(readdirSync(folder)).toEqual(["binaries"]);
  state.close();
  expect(existsSync(join(folder, "state.db"))).toBe(false);
});
