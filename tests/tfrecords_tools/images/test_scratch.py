import threading

from tfrecords_tools.images.scratch import scratch


def test_a_thread_gets_the_same_memory_again_unless_it_is_too_small():
    buffer = scratch(100)
    assert scratch(50) is buffer
    assert scratch(buffer.size) is buffer
    larger = scratch(buffer.size + 1)
    assert larger.size == buffer.size + 1
    assert scratch(1) is larger


def test_threads_do_not_share_memory():
    ours, theirs = scratch(10), []
    thread = threading.Thread(target=lambda: theirs.append(scratch(10)))
    thread.start()
    thread.join()
    assert theirs[0] is not ours
