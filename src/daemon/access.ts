// From the daemon's options to who may control it, and how its TCP socket is encrypted.

import { formatAddress, isLoopbackHost } from "../address.ts";
import { Access } from "../control/access.ts";
import { OrchestratorError } from "../errors.ts";
import { readPem, readSecret } from "../files.ts";
import { SocketOwners } from "../host/credentials.ts";
import { QuietLog, type TargetLog } from "../log.ts";
import type { ServerTls } from "../socket.ts";
import type { DaemonOptions } from "./options.ts";

/**
 * Who may control this daemon. From other machines only those who show a token, unless it was said
 * that everybody may.
 * @throws `misuse` if that is not said; what `readSecret` throws
 */
export function openAccess({
  control,
  tokenFile,
  insecureTcp,
  tlsClientCa,
}: DaemonOptions): Access {
  const isOpen = insecureTcp === true || tlsClientCa !== undefined; // who has no certificate gets nowhere
  const token = tokenFile === undefined ? undefined : readSecret(tokenFile);
  const isReachable = control.kind === "tcp" && !isLoopbackHost(control.host);
  if (isReachable && token === undefined && !isOpen) {
    throw new OrchestratorError(
      "misuse",
      `Cannot listen on ${formatAddress(control)}: other machines reach it, and there is no token`,
      { hint: 'make one with "token new FILE" and add --token-file FILE; or add --insecure-tcp' },
    );
  }
  const owners = new SocketOwners();
  return new Access({
    uid: process.getuid?.() ?? 0,
    token,
    isInsecure: isOpen,
    ownerOf: ({ local, remote }) => owners.ownerOf(remote, local), // the peer's end of it
  });
}

/**
 * The certificates of a TCP control socket, if it has any.
 * @throws `misuse` without a TCP control socket; `io` for a file that cannot be read
 */
export function readTls({
  control,
  tlsCert,
  tlsKey,
  tlsClientCa,
}: DaemonOptions): ServerTls | undefined {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  if (control.kind !== "tcp") {
    throw new OrchestratorError(
      "misuse",
      "Cannot use TLS on a Unix path: it never leaves the machine",
    );
  }
  return {
    cert: readPem(tlsCert),
    key: readPem(tlsKey),
    clientCa: tlsClientCa === undefined ? undefined : readPem(tlsClientCa),
  };
}

/** Tells in the log, at most once a second, who has not come through a TLS handshake. */
export function handshakeLog(
  log: TargetLog,
  now: () => number,
): (peer: string, reason: string) => void {
  const quiet = new QuietLog(log, now);
  return (peer, error) => {
    const fields = { "connection.peer": peer, error };
    quiet.warn("handshake", "run:connection", "refused a TLS handshake", fields);
  };
}

/** What somebody should know of a control socket that other machines reach; undefined: nothing. */
export function tcpWarning({ control, insecureTcp, tlsCert }: DaemonOptions): string | undefined {
  if (control.kind !== "tcp" || isLoopbackHost(control.host)) return undefined;
  if (insecureTcp === true) {
    return "everybody who reaches the TCP control socket controls this daemon";
  }
  return tlsCert === undefined
    ? "the TCP control socket is not encrypted: add --tls-cert and --tls-key, or use a tunnel"
    : undefined;
}
