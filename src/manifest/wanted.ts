// What a manifest asks for: instances and links, checked, with every path absolute and every default
// in its place.

import { formatHostPort } from "../address.ts";
import type { LinkSettings } from "../model.ts";
import type { ProgramSettings } from "../settings.ts";
import type { Readiness } from "./shape.ts";

/** An instance that shall be there. */
export interface WantedInstance {
  readonly settings: ProgramSettings;
  /** Of the program; absolute. */
  readonly path: string;
  /** Whether the daemon keeps a copy of the program. */
  readonly copy: boolean;
  /** Whether it shall run. */
  readonly start: boolean;
  /** The names of instances that are started, and ready, before it. */
  readonly after: readonly string[];
  /** What makes it ready; the path of a file is absolute. */
  readonly ready: Readiness;
}

/** Where a link leads, with an instance by its name: ids are the daemon's. */
export type LinkEnd = { readonly kind: "instance"; readonly name: string } | Remote;

/** Another orchestrator. */
export interface Remote {
  readonly kind: "remote";
  readonly host: string;
  readonly port: number;
}

/** One link among instances that have names. */
export interface NamedLink {
  /** The only instance whose messages it takes; undefined: any. */
  readonly from: string | undefined;
  readonly typeName: string;
  readonly to: LinkEnd;
  readonly settings: LinkSettings;
}

export interface Manifest {
  /** Whose the instances and links are: the manifest's name, or the path of its first file. */
  readonly owner: string;
  /** In the order of the files. */
  readonly instances: readonly WantedInstance[];
  readonly links: readonly NamedLink[];
}

/** The name of an instance, or `127.0.0.1:2661`. */
export function formatEnd(end: LinkEnd): string {
  return end.kind === "instance" ? end.name : formatHostPort(end.host, end.port);
}

/** Equal for links of which a daemon holds one: the same messages to the same end. */
export function linkKey({ from, typeName, to }: NamedLink): string {
  return JSON.stringify([from ?? null, typeName, formatEnd(to)]);
}

/** `demo::Ping from ping to pong` */
export function formatLink({ from, typeName, to }: NamedLink): string {
  return `${typeName}${from === undefined ? "" : ` from ${from}`} to ${formatEnd(to)}`;
}
