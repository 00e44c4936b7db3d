// What servers and clients of these tests share.
import { request } from 'node:http';

export function send(answer, status, body) {
  answer.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  answer.end(JSON.stringify(body));
}

export async function text(asked) {
  const pieces = [];
  for await (const piece of asked) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

export const form = async (asked) => new URLSearchParams(await text(asked));

/** Posts a form to an address of this machine, whatever its name says: the status, or 0. */
export function post(address, body) {
  const url = new URL(address);
  return new Promise((done) => {
    const headers = { host: url.host, 'content-type': 'application/x-www-form-urlencoded' };
    const call = request({ host: '127.0.0.1', port: url.port, path: url.pathname, method: 'POST', headers }, (answer) => {
      answer.resume();
      done(answer.statusCode);
    });
    call.on('error', () => done(0));
    call.end(body);
  });
}
