// The shape of a manifest as people write it, for `.ts` manifests that want their types checked.
//
// `docs/manifest.md` describes every key. That a value really has this shape is checked at run time,
// for every kind of file alike.

import type { OnFull, Priority } from "../model.ts";
import type { RestartPolicy, StopSignal } from "../settings.ts";

/** `250ms`, `5s`, `1.5m`, `2h`, `1d` */
export type Duration = `${number}${"ms" | "s" | "m" | "h" | "d"}`;

/** `100B`, `512KiB`, `4MiB` */
export type Size = `${number}${"B" | "KiB" | "MiB" | "GiB"}`;

/** What has to be seen before an instance counts as ready, and what waits for it is started. */
export type Readiness =
  | "running"
  | "connected"
  /** A line of its output contains this text. */
  | { readonly output: string }
  /** This file is there. */
  | { readonly file: string }
  /** Somebody accepts TCP connections on this port of 127.0.0.1. */
  | { readonly port: number }
  /** It has sent a message of this type. */
  | { readonly message: string };

export interface InstanceShape {
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly env_file?: string;
  readonly cwd?: string;
  readonly restart?: RestartPolicy;
  readonly restart_delay?: Duration;
  readonly stop_signal?: StopSignal;
  readonly stop_grace?: Duration;
  readonly priority?: Priority;
  readonly privileged?: boolean;
  readonly copy?: boolean;
  readonly start?: boolean;
  readonly after?: readonly string[];
  readonly ready?: Readiness;
}

export interface LinkShape {
  readonly from?: string;
  readonly type: string;
  readonly to: string;
  readonly queue?: Size | number;
  readonly on_full?: OnFull;
}

export interface RemoteShape {
  readonly address: string;
}

export interface ManifestShape {
  readonly name?: string;
  readonly include?: readonly string[];
  readonly instances?: Readonly<Record<string, InstanceShape>>;
  readonly links?: readonly LinkShape[];
  readonly remotes?: Readonly<Record<string, RemoteShape>>;
}

/** Returns the manifest as it is; an editor then knows its keys. */
export function defineManifest(manifest: ManifestShape): ManifestShape {
  return manifest;
}
