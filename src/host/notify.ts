// A door: tells the service manager (systemd) how the daemon is, by the protocol of `sd_notify`.
//
// One datagram with lines such as `READY=1` to the Unix socket that $NOTIFY_SOCKET names. Bun has no
// such sockets: the C library sends it, or else the program `systemd-notify`.

import { OrchestratorError } from "../errors.ts";
import type { TargetLog } from "../log.ts";

/** The service manager's ear. */
export interface Notifier {
  /** The daemon serves; from now on the watchdog is told that it lives. */
  ready(): void;
  /** One line for `systemctl status`. */
  status(text: string): void;
  /** The daemon is ending. */
  stopping(): void;
  close(): void;
}

/** Sends one datagram; false if nobody took it. */
type Send = (text: string) => boolean;

/** Opens the way to the service manager, or returns undefined where there is none. */
export async function openNotifier(
  env: Readonly<Record<string, string | undefined>>,
  log: TargetLog,
): Promise<Notifier | undefined> {
  const address = env["NOTIFY_SOCKET"];
  if (address === undefined || !/^[/@]./.test(address)) return undefined;
  let hasFailed = false;
  const fail = (reason: string): void => {
    if (hasFailed) return;
    hasFailed = true;
    log.warn("run", "cannot tell the service manager", { socket: address, reason });
  };
  const direct = await openSender(address).catch(() => undefined);
  const send: Send = (text) => direct?.send(text) === true || runNotify(address, text, fail);
  const intervalMs = watchdogMs(env);
  let watchdog: ReturnType<typeof setInterval> | undefined;
  return {
    ready: () => {
      send("READY=1");
      if (intervalMs === undefined || watchdog !== undefined) return;
      watchdog = setInterval(() => send("WATCHDOG=1"), intervalMs);
      watchdog.unref();
    },
    status: (text) => void send(`STATUS=${text.replaceAll(/[\r\n]+/g, " ")}`),
    stopping: () => void send("STOPPING=1"),
    close: () => {
      clearInterval(watchdog);
      direct?.close();
    },
  };
}

/** How often the watchdog wants to hear of us: twice in the time that it allows. */
export function watchdogMs(env: Readonly<Record<string, string | undefined>>): number | undefined {
  const { WATCHDOG_USEC: allowed, WATCHDOG_PID: pid } = env;
  if (allowed === undefined || !/^[1-9][0-9]{0,14}$/.test(allowed)) return undefined;
  if (pid !== undefined && pid !== "" && pid !== String(process.pid)) return undefined;
  return Math.max(Number(allowed) / 2_000, 1);
}

/** `struct sockaddr_un`: the family, then the path; a name in the abstract space begins with a zero. */
function socketAddress(address: string): Buffer {
  const AF_UNIX = 1;
  const name = Buffer.from(address);
  if (name.length > 107) throw new OrchestratorError("io", `Cannot use ${address}: it is too long`);
  if (name[0] === 0x40) name[0] = 0;
  const bytes = Buffer.alloc(2 + name.length + (name[0] === 0 ? 0 : 1));
  bytes.writeUInt16LE(AF_UNIX, 0);
  name.copy(bytes, 2);
  return bytes;
}

/** @throws if the C library cannot be used from here */
async function openSender(address: string): Promise<{ send: Send; close(): void }> {
  const target = socketAddress(address);
  const { dlopen, ptr } = await import("bun:ffi");
  const symbols = {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    sendto: { args: ["i32", "ptr", "u64", "i32", "ptr", "u32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  } as const;
  const open = (): ReturnType<typeof dlopen<typeof symbols>> => {
    for (const name of ["libc.so.6", `libc.musl-${muslArch()}.so.1`]) {
      try {
        return dlopen(name, symbols);
      } catch {
        // the other C library
      }
    }
    throw new OrchestratorError("io", "Cannot find the C library");
  };
  const c = open().symbols;
  const [AF_UNIX, SOCK_DGRAM, SOCK_CLOEXEC] = [1, 2, 0o2000000];
  const [MSG_DONTWAIT, MSG_NOSIGNAL] = [0x40, 0x4000];
  const fd = c.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new OrchestratorError("io", "Cannot open a socket");
  return {
    send: (text) => {
      const bytes = Buffer.from(text);
      const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
      const sent = c.sendto(fd, ptr(bytes), bytes.length, flags, ptr(target), target.length);
      return Number(sent) === bytes.length;
    },
    close: () => void c.close(fd),
  };
}

function muslArch(): string {
  return process.arch === "arm64" ? "aarch64" : "x86_64";
}

/** The second way: a program of systemd, which not every service accepts messages from. */
function runNotify(address: string, text: string, fail: (reason: string) => void): boolean {
  try {
    const child = Bun.spawn(["systemd-notify", text], {
      env: { NOTIFY_SOCKET: address, PATH: "/usr/bin:/bin:/usr/local/bin" },
      stdio: ["ignore", "ignore", "ignore"],
      onExit: (_child, code) => {
        if (code !== 0) fail("systemd-notify failed");
      },
    });
    child.unref();
    return true;
  } catch {
    fail("neither the C library nor systemd-notify could be used");
    return false;
  }
}
