//! The hub's client against a stand-in on this machine: downloads, broken and resumed transfers, offline.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};
use tritforge_data::{Address, Hub};

/// What the stand-in was asked for, one `PATH RANGE` a request.
type Requests = Arc<Mutex<Vec<String>>>;

/// Serves `body` at every path that ends in `.jsonl`, in the hub's way. The transfers of the file itself
/// break off after so many bytes as `breaks` says, one after the other; when it is used up they are whole.
fn serve(body: Vec<u8>, etag: String, breaks: Vec<usize>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let log = Arc::clone(&requests);
    thread::spawn(move || {
        let mut breaks = breaks.into_iter();
        for stream in listener.incoming() {
            // A client that hangs up is no fault of the server's.
            let _ = answer(stream.unwrap(), &body, &etag, &mut breaks, &log);
        }
    });
    (endpoint, requests)
}

fn answer(
    mut stream: TcpStream,
    body: &[u8],
    etag: &str,
    breaks: &mut impl Iterator<Item = usize>,
    log: &Requests,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap().to_string();
    let mut range = String::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = value.to_string();
        }
    }
    log.lock().unwrap().push(format!("{path} {range}"));
    if !path.ends_with(".jsonl") {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(body.len(), |end: usize| end + 1);
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\
         ETag: \"{etag}\"\r\nX-Repo-Commit: c0ffee\r\nConnection: close\r\n\r\n",
        end - start,
        end - 1,
        body.len()
    )?;
    let whole = range.ends_with('-').then(|| breaks.next()).flatten();
    let sent = whole.map_or(end, |count| (start + count).min(end));
    stream.write_all(&body[start..sent])
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn hub(endpoint: &str, cache: &std::path::Path) -> Hub {
    Hub { endpoint: endpoint.to_string(), cache: cache.to_path_buf(), offline: false, progress: false }
}

const ADDRESS: &str = "hf://datasets/o/n/train.jsonl@v1";

#[test]
fn a_broken_transfer_is_resumed_and_the_cache_serves_offline() {
    let body: Vec<u8> = (0..300_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let (endpoint, requests) = serve(body.clone(), sha256(&body), vec![100_000, 50_000]);
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, dir.path());
    let path = hub.dataset_file(ADDRESS).unwrap();
    assert!(std::fs::read(&path).unwrap() == body);
    let asked = requests.lock().unwrap().clone();
    let transfers: Vec<_> = asked.iter().filter(|r| r.ends_with('-')).collect();
    assert_eq!(transfers.len(), 3, "{asked:?}");
    assert!(asked[0].starts_with("/datasets/o/n/resolve/v1/train.jsonl "), "{asked:?}");
    // Each transfer asks for what the one before did not bring; a byte is never asked for twice.
    let starts: Vec<usize> = transfers
        .iter()
        .map(|r| r.split(' ').nth(1).unwrap().trim_end_matches('-').parse().unwrap())
        .collect();
    assert_eq!(starts, [0, 100_000, 150_000]);
    let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".to_string(), ..hub.clone() };
    assert_eq!(offline.dataset_file(ADDRESS).unwrap(), path);
    assert_eq!(requests.lock().unwrap().len(), asked.len(), "the cache asks nobody");
    let error = offline.dataset_file("hf://datasets/o/n/other.jsonl").unwrap_err().to_string();
    assert!(error.starts_with("hf://datasets/o/n/other.jsonl: not in the cache"), "{error}");
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn a_later_call_goes_on_where_an_earlier_one_gave_up() {
    let body = vec![b'x'; 100_000];
    // One transfer and five resumptions of one call break off.
    let (endpoint, requests) = serve(body.clone(), sha256(&body), vec![10_000; 6]);
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, dir.path());
    let error = hub.dataset_file(ADDRESS).unwrap_err().to_string();
    assert!(error.contains("cannot download from http://127.0.0.1"), "{error}");
    assert!(std::fs::read(hub.dataset_file(ADDRESS).unwrap()).unwrap() == body);
    assert!(requests.lock().unwrap().last().unwrap().ends_with(" 60000-"));
}

#[test]
fn a_file_that_is_not_the_one_stated_is_removed() {
    let (endpoint, _) = serve(b"{}".to_vec(), "0".repeat(64), Vec::new());
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, dir.path());
    for _ in 0..2 {
        let error = hub.dataset_file(ADDRESS).unwrap_err().to_string();
        assert!(error.contains("the hub says 000"), "{error}");
    }
    let address: Address = "hf://o/n".parse().unwrap();
    let error =
        hub.fetch(&Address { file: "absent".to_string(), ..address }, "hf://o/n").unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_model_is_its_configuration_and_all_its_shards() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("models--o--n");
    let snapshot = repository.join("snapshots/c0ffee");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "c0ffee").unwrap();
    let hub = Hub { offline: true, ..hub("http://127.0.0.1:1", dir.path()) };
    let put = |name: &str, text: &str| std::fs::write(snapshot.join(name), text).unwrap();

    assert!(hub.model("hf://o/n").unwrap_err().to_string().contains("not in the cache"));
    put("config.json", "{}");
    assert!(hub.model("hf://o/n").is_err(), "a model has weights");
    put("model.safetensors", "");
    assert_eq!(hub.model("hf://o/n").unwrap(), snapshot);
    put("model.safetensors.index.json", r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#);
    put("1.safetensors", "");
    assert!(hub.model("hf://o/n").is_err(), "the second shard is missing");
    put("2.safetensors", "");
    assert_eq!(hub.model("hf://o/n").unwrap(), snapshot);
    put("m.gguf", "");
    assert_eq!(hub.model("hf://o/n/m.gguf").unwrap(), snapshot.join("m.gguf"));
}
