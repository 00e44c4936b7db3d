//! Who is let in and who is cut while memory runs out.

use super::*;

#[tokio::test]
async fn without_memory_no_connection_is_taken() {
    let edge = Running::plain(Limits::default()).await;
    settled(&edge).await;
    edge.overload.set(overload::Level::Critical);
    assert!(served(&edge).await.is_none());
    assert_eq!(edge.refused("memory"), 1);
    edge.overload.set(overload::Level::High);
    assert!(served(&edge).await.is_some(), "that is for the request to hear");
}

/// A connection with so many requests whose answers it does not take.
async fn holding(edge: &Running, answers: usize) -> JoinHandle<Result<(), h2::Error>> {
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (mut client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut held: Vec<h2::RecvStream> = Vec::new();
    for _ in 0..answers {
        let request = http::Request::get(format!("http://{}/", edge.address)).body(()).unwrap();
        client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        held.push(answer.await.unwrap().into_body());
    }
    tokio::spawn(async move {
        // Held until the test is over.
        let _all = (client, held);
        std::future::pending::<()>().await;
    });
    connection
}

#[tokio::test]
async fn who_holds_many_answers_is_cut_when_memory_runs_out() {
    let edge = Running::plain(Limits::default()).await;
    settled(&edge).await;
    let (few, many) = (holding(&edge, 4).await, holding(&edge, 40).await);
    assert!(!many.is_finished());
    edge.overload.set(overload::Level::High);
    let _ = tokio::time::timeout(PATIENCE, many).await.expect("it is cut").unwrap();
    until("counted", || edge.refused("memory") == 1).await;
    assert!(!few.is_finished(), "a browser is left alone");
    edge.overload.set(overload::Level::High);
    assert!(served(&edge).await.is_some());
    assert!(!few.is_finished() && edge.refused("memory") == 1);
}

#[tokio::test]
async fn who_takes_nothing_of_a_large_answer_is_cut_when_memory_runs_out() {
    let edge = Running::plain(Limits::default()).await;
    settled(&edge).await;
    let ask = async || {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 1000]).await.unwrap();
        stream
    };
    let (mut stuck, mut taking, mut idle) = (ask().await, ask().await, TcpStream::connect(edge.address).await.unwrap());
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_answer(&mut idle).await;
    let taken = tokio::spawn(async move {
        let mut buffer = vec![0; 256 << 10];
        while taking.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let end = Instant::now() + PATIENCE;
    while edge.refused("memory") == 0 {
        assert!(Instant::now() < end, "it is cut");
        edge.overload.set(overload::Level::High);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    read_to_close(&mut stuck).await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_answer(&mut idle).await;
    assert!(!taken.is_finished() && edge.refused("memory") == 1, "who takes what he asked for is left alone");
    taken.abort();
}
