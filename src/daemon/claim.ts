// One daemon per socket: makes sure that nobody else serves a path, and takes folders of its own.

import { dirname, join } from "node:path";

import { formatAddress, socketPathFault } from "../address.ts";
import { temporaryFolder } from "../client.ts";
import { hinted, OrchestratorError, systemCode } from "../errors.ts";
import { type FileLock, lockHolder, type OwnFolder, takeFolder, tryLock } from "../files/lock.ts";
import { isListening, isOtherFile, isThere, makePrivateFolder } from "../files.ts";
import { LEFT_SOCKET_MS, LEFT_SOCKET_POLL_MS } from "../limits.ts";
import type { DaemonOptions } from "./options.ts";
import type { Host } from "../host.ts";
import type { InstanceSocket } from "../instance.ts";
import { type Accept, connect, DISCARD, listen, type Listener, type OnFault } from "../socket.ts";

/**
 * Makes sure that nobody else serves a path: takes its lock, then asks who answers there.
 * @throws `already_exists`, `permission_denied` or `io`
 */
export async function claimSocket(
  path: string,
  env: DaemonOptions["env"],
  host: Pick<Host, "now" | "after">,
): Promise<FileLock> {
  const folder = dirname(path);
  let lock: FileLock | undefined;
  try {
    if (folder === temporaryFolder(env["TMPDIR"])) makePrivateFolder(folder);
    lock = tryLock(`${path}.lock`);
  } catch (error) {
    throw hinted(
      error,
      "choose another --control-socket, or set XDG_RUNTIME_DIR to a folder of your own",
    );
  }
  const refuse = (
    reason: string,
    hint: string = "stop the other one, or give this one its own --control-socket",
  ): OrchestratorError =>
    new OrchestratorError("already_exists", `Cannot listen on ${path}: ${reason}`, { hint });
  if (lock === undefined) {
    const pid = lockHolder(`${path}.lock`);
    const reason = `another daemon serves it${pid === undefined ? "" : ` (pid ${pid})`}`;
    if (isThere(path)) throw refuse(reason);
    throw refuse(reason, "its socket is not there: unless it has just been started, start it anew");
  }
  try {
    if (isOtherFile(path)) {
      throw refuse("a file that is not a socket stands there", "choose another --control-socket");
    }
    // A daemon that was killed while it started a program may live on in it for a moment.
    for (const deadline = host.now() + LEFT_SOCKET_MS; await isServed(path);) {
      if (host.now() > deadline) throw refuse("another program serves it");
      await new Promise<void>((resolve) => void host.after(LEFT_SOCKET_POLL_MS, resolve));
    }
    return lock;
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Whether anybody listens on a path; a socket that nobody serves, or that is not there, refuses. */
async function isServed(path: string): Promise<boolean> {
  try {
    const connection = await connect(
      { kind: "unix", path },
      () => DISCARD,
      () => {},
    );
    connection.close();
    return true;
  } catch (error) {
    const code = systemCode((error as Error).cause);
    if (code === "ECONNREFUSED") return isListening(path);
    return code !== "ENOENT";
  }
}

/** A folder for the sockets and uploads of this daemon's instances. */
export function takeInstanceFolder(options: DaemonOptions): OwnFolder {
  const control = formatAddress(options.control);
  const hash = new Bun.CryptoHasher("sha256").update(control).digest("hex").slice(0, 8);
  const bases = [options.env["XDG_RUNTIME_DIR"], options.env["TMPDIR"], "/tmp"];
  const user = process.getuid?.() ?? 0;
  return takeFolder(
    bases.filter((base): base is string => base?.startsWith("/") === true),
    `veecle-orchestrator-${user}-${hash}`,
    (path) => socketPathFault(join(path, "1000000.socket.999")) === undefined,
  );
}

/** Named by the instance where that is short enough. */
function instanceSocketPath(folder: string, id: string, number: number): string {
  const path = join(folder, `${id}.socket`);
  return socketPathFault(`${path}.999`) === undefined ? path : join(folder, `${number}.socket`);
}

/**
 * Opens the socket of an instance in the folder of this daemon. The folder is made anew where it was
 * removed under the daemon, as that in /run/user is when its user logs out.
 * @throws `permission_denied` or `io`
 */
export function openInstanceSocket(
  folder: string,
  id: string,
  number: number,
  accept: Accept,
  onFault: OnFault,
): InstanceSocket {
  const path = instanceSocketPath(folder, id, number);
  const open = (): Listener => {
    if (!isThere(folder)) makePrivateFolder(folder);
    return listen({ kind: "unix", path }, accept, onFault);
  };
  let listener = open();
  return {
    path,
    restore: () => {
      if (isThere(path)) return;
      listener.stop();
      listener = open();
    },
    close: () => listener.stop(),
  };
}
