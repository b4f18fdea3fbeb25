//! Clients that take their time.

use super::*;

/// Sends each of `writes` after its pause. Gives what came back, and the second at which the connection ended.
fn converse_slowly(writes: &[(u64, &str)]) -> (Vec<Reply>, u64) {
    let writes: Vec<(u64, String)> = writes.iter().map(|(pause, text)| (*pause, (*text).into())).collect();
    Simulation::new(1).block_on(async move {
        let (mut reader, mut writer) = connect(site, Limits::default()).await.split();
        let send = async {
            for (pause, text) in writes {
                time::sleep(Duration::from_secs(pause)).await;
                let _ = writer.write_all(text.as_bytes()).await;
            }
        };
        let receive = async {
            let replies = read_replies(read_all(&mut reader).await.unwrap());
            (replies, time::now().as_nanos() / 1_000_000_000)
        };
        join(send, receive).await.1
    })
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn silence_is_ended_without_a_word() {
    assert_eq!(converse_slowly(&[]), (vec![], 10));
    let (replies, second) = converse_slowly(&[(7, REQUEST), (50, REQUEST)]);
    assert_eq!((replies.len(), second), (2, 7 + 50 + 60));
}

#[test]
fn a_head_has_its_time_from_its_first_byte() {
    let (replies, second) = converse_slowly(&[(3, "G"), (3, "E"), (3, "T"), (3, " ")]);
    assert_eq!((replies[0].status, second), (408, 10));
    let (replies, second) = converse_slowly(&[(3, REQUEST), (30, "G"), (6, "E"), (6, "T")]);
    assert_eq!((replies[1].status, second), (408, 3 + 30 + 10));
}

#[test]
fn a_body_has_its_time_from_part_to_part() {
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
    let (replies, second) = converse_slowly(&[(0, head), (15, "a"), (15, "b"), (15, "cd"), (1, "")]);
    assert_eq!((replies[0].text(), second), ("abcd", 45 + 60));
    let (replies, second) = converse_slowly(&[(0, head), (15, "a")]);
    assert_eq!((replies[0].status, replies.len(), second), (408, 1, 35));
}

#[test]
fn a_client_that_does_not_read_is_reset() {
    Simulation::new(1).block_on(async {
        let mut client = connect(site, Limits::default()).await;
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        time::sleep(Duration::from_secs(19)).await;
        let mut piece = [0; 100];
        assert!(client.read(&mut piece).await.is_ok());
        time::sleep(Duration::from_secs(21)).await;
        assert_eq!(client.read(&mut piece).await, Err(StreamError::Reset));
    });
}

#[test]
fn a_client_that_goes_on_sending_after_a_refusal_still_gets_it() {
    let (replies, second) = converse_slowly(&[(0, "GET x\r\n\r\n"), (1, "more"), (3, "more")]);
    assert_eq!((replies[0].status, second), (400, 0));
}
