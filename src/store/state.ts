// The state of one daemon: its folder, the lock of that, and the rooms in it.
//
//   <folder>/lock        held as long as the daemon lives
//   <folder>/state.db    what it remembers, while it runs with -wal and -shm beside
//   <folder>/reserve     room that is given up when a daemon starts on a full disk
//   <folder>/binaries/   uploaded binaries, by hash
//   <folder>/output/     what instances print, a folder for each

import { basename, dirname, join, resolve } from "node:path";

import { type Address, formatAddress } from "../address.ts";
import { Binaries } from "./binaries.ts";
import { OrchestratorError } from "../errors.ts";
import {
  isThere,
  makeFolders,
  makePrivateFolder,
  occupy,
  roomAt,
  syncPath,
  vacate,
} from "../files.ts";
import { lockHolder, tryLock } from "../files/lock.ts";
import { STATE_RESERVE_BYTES } from "../limits.ts";
import { Store } from "../store.ts";

export interface State {
  readonly folder: string;
  /** Whether it outlives the daemon. */
  readonly isKept: boolean;
  readonly store: Store;
  readonly binaries: Binaries;
  /** Commits and lets go of everything. @throws as `Store.close()`; it is closed even then */
  close(): void;
}

/**
 * The folders of a daemon's state where none is named, outermost first:
 * `$XDG_STATE_HOME/veecle-orchestrator` (or `~/.local/state/…`) and in it one for each control
 * socket: its name begins with that of the socket and ends with a hash of its whole address, since
 * several daemons of one user are told apart by that.
 * @throws `misuse` if the environment names no home
 */
export function stateFolders(
  control: Address,
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  const { XDG_STATE_HOME, HOME } = env;
  const base = [XDG_STATE_HOME, HOME === undefined ? undefined : join(HOME, ".local/state")];
  const found = base.find((path) => path?.startsWith("/"));
  if (found === undefined) {
    throw new OrchestratorError(
      "misuse",
      "Cannot tell where to keep the state: neither XDG_STATE_HOME nor HOME is an absolute path",
      { hint: "start with --state-dir DIR, or with --ephemeral to keep nothing" },
    );
  }
  const folder = join(found, "veecle-orchestrator");
  return [folder, join(folder, stateName(control))];
}

function stateName(control: Address): string {
  const address = control.kind === "unix" ? resolve(control.path) : formatAddress(control);
  const hash = new Bun.CryptoHasher("sha256").update(address).digest("hex").slice(0, 12);
  const readable = basename(address).replaceAll(/[^A-Za-z0-9.-]+/g, "-");
  return `${readable.slice(0, 40)}-${hash}`;
}

/**
 * Opens the state in the last of these folders; each is made private, or must be.
 * @throws `already_exists` if another daemon has it, `permission_denied`, `state_unusable` or `io`
 */
export function openState(folders: readonly string[]): State {
  const paths = folders.map((folder) => resolve(folder));
  const folder = paths.at(-1) as string;
  makeFolders(dirname(paths[0] as string));
  for (const path of paths) {
    if (makePrivateFolder(path)) syncPath(dirname(path));
  }
  const path = join(folder, "lock");
  const lock = tryLock(path);
  if (lock === undefined) {
    const pid = lockHolder(path);
    throw new OrchestratorError(
      "already_exists",
      `Cannot use the state in ${folder}: another daemon uses it${pid === undefined ? "" : ` (pid ${pid})`}`,
      { hint: "stop the other one, or give this one its own --state-dir" },
    );
  }
  try {
    const { store, binaries } = openRooms(folder);
    return {
      folder,
      isKept: true,
      store,
      binaries,
      close: () => {
        try {
          store.close();
          binaries.abandon();
        } finally {
          lock.release();
        }
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** First what may be refused: then nothing else is made. @throws as `Store.open` and `Binaries` */
function openRooms(folder: string): Pick<State, "store" | "binaries"> {
  const store = openStore(join(folder, "state.db"), join(folder, "reserve"));
  try {
    return { store, binaries: new Binaries(join(folder, "binaries")) };
  } catch (error) {
    store.close();
    throw error;
  }
}

/**
 * A full disk must not keep what ran before from running: there is room that is given up for that, and
 * taken again by a later start.
 * @throws as `Store.open`
 */
function openStore(path: string, reserve: string): Store {
  const room = roomAt(dirname(path));
  if (room < STATE_RESERVE_BYTES) vacate(reserve);
  const store = Store.open(path);
  if (room >= 2 * STATE_RESERVE_BYTES && !isThere(reserve)) occupy(reserve, STATE_RESERVE_BYTES);
  return store;
}

/** A state that ends with the daemon; binaries stand in the folder of its sockets meanwhile. */
export function ephemeralState(runtimeFolder: string): State {
  const store = Store.open(":memory:");
  const binaries = new Binaries(join(runtimeFolder, "binaries"));
  return { folder: runtimeFolder, isKept: false, store, binaries, close: () => store.close() };
}
