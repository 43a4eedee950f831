//! Work that is captured and launched.

use tritforge_kernels_cuda::{Buffer, CudaError};

use super::{gpu, numbers};

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn a_graph_does_its_work_anew_at_every_launch() {
    let gpu = gpu();
    let bias = numbers(1, 100);
    let (bias_there, mut x) = (gpu.upload(&bias).unwrap(), gpu.upload(&numbers(2, 300)).unwrap());
    let mut sum = Buffer::default();
    gpu.add(&x, &x, &mut sum).unwrap();
    let graph = gpu
        .capture(|| {
            gpu.add(&x, &x, &mut sum)?;
            gpu.add_bias(&mut sum, &bias_there)
        })
        .unwrap();
    // Nothing has been done yet.
    let doubled: Vec<f32> = numbers(2, 300).iter().map(|x| x + x).collect();
    assert_eq!(sum.download().unwrap(), doubled);
    for seed in 3..6 {
        let numbers = numbers(seed, 300);
        gpu.write(&mut x, &numbers).unwrap();
        graph.launch().unwrap();
        let expected: Vec<f32> = numbers.iter().enumerate().map(|(i, x)| x + x + bias[i % 100]).collect();
        assert_eq!(sum.download().unwrap(), expected);
    }
    // What is queued is done though the graph is gone.
    graph.launch().unwrap();
    drop(graph);
    assert_eq!(sum.download().unwrap().len(), 300);
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn what_a_capture_forbids_leaves_no_graph_and_no_harm() {
    let gpu = gpu();
    let mut x = gpu.upload(&[1f32, 2.0]).unwrap();
    let mut sum = Buffer::default();
    let allocates = gpu.capture(|| gpu.add(&x, &x, &mut sum));
    assert_eq!(allocates.unwrap_err(), CudaError::Capturing { what: "to allocate memory" });
    let waits = gpu.capture(|| x.download().map(drop));
    assert_eq!(waits.unwrap_err(), CudaError::Capturing { what: "to copy from the GPU" });
    let copies = gpu.capture(|| gpu.write(&mut x, &[3.0, 4.0]));
    assert!(copies.unwrap_err().to_string().contains("to copy to the GPU is impossible"));
    let panics = std::panic::catch_unwind(|| gpu.capture(|| panic!("on purpose")).map(drop));
    assert!(panics.is_err());
    gpu.add(&x, &x, &mut sum).unwrap();
    let graph = gpu.capture(|| gpu.add(&sum, &x, &mut Buffer::default())).unwrap_err();
    assert!(matches!(graph, CudaError::Capturing { .. }));
    assert_eq!(sum.download().unwrap(), [2.0, 4.0]);
    let mut x_again = gpu.upload(&[5f32, 6.0]).unwrap();
    gpu.capture(|| gpu.add(&x, &sum, &mut x_again)).unwrap().launch().unwrap();
    assert_eq!(x_again.download().unwrap(), [3.0, 6.0]);
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn other_threads_go_on_during_a_capture() {
    let gpu = gpu();
    let x = gpu.upload(&[1f32, 2.0]).unwrap();
    let mut sum = gpu.upload(&[0f32, 0.0]).unwrap();
    let graph = gpu
        .capture(|| {
            let there = std::thread::scope(|scope| {
                let work = scope.spawn(|| gpu.upload(&[7f32]).unwrap().download().unwrap());
                work.join().unwrap()
            });
            assert_eq!(there, [7.0]);
            gpu.add(&x, &x, &mut sum)
        })
        .unwrap();
    graph.launch().unwrap();
    assert_eq!(sum.download().unwrap(), [2.0, 4.0]);
}
