// One port in front of the replicas: connections go in turn to those whose /readyz says 200, and to another one where a
// connection is refused, as a Service of Kubernetes or a load balancer does it.
import { get } from 'node:http';
import { connect, createServer } from 'node:net';

/** `replicas`: `{ port, admin }` of each. */
export function balance(port, replicas) {
  const ready = replicas.map(() => true);
  let turn = 0;

  setInterval(() => replicas.forEach(({ admin }, place) => {
    const call = get({ host: '127.0.0.1', port: admin, path: '/readyz', timeout: 2000, agent: false }, (answer) => {
      answer.resume();
      ready[place] = answer.statusCode === 200;
    });
    call.on('timeout', () => call.destroy());
    call.on('error', () => { ready[place] = false; });
  }), 200);

  const attempt = (client, places) => {
    const place = places.shift();
    if (place === undefined) return client.destroy();
    const server = connect(replicas[place].port, '127.0.0.1');
    let connected = false;
    server.on('error', () => (connected ? client.destroy() : attempt(client, places)));
    server.on('connect', () => {
      connected = true;
      client.pipe(server).pipe(client);
      client.on('close', () => server.destroy());
      server.on('close', () => client.destroy());
    });
  };

  createServer((client) => {
    client.on('error', () => {});
    turn += 1;
    const order = replicas.map((_, more) => (turn + more) % replicas.length);
    attempt(client, [...order.filter((place) => ready[place]), ...order.filter((place) => !ready[place])]);
  }).listen(port, '127.0.0.1');
}
